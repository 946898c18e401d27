output "yaml" {
  description = "Values for helm/eo-batch."
  value = yamlencode({
    image = { cpu = var.images.cpu, gpu = var.images.gpu }
    store = { for key, value in local.store : key => value if value != null }

    serviceAccounts = {
      for name, identity in var.identities : name => {
        annotations = identity.annotations
        podLabels   = identity.pod_labels
      }
    }

    pools = {
      for name, tolerations in local.pools : name => {
        nodeSelector = { "eo-batch.io/pool" = name }
        tolerations  = tolerations
      }
    }

    # What ../prerequisites installs is there to be used.
    argo      = { enabled = true, serverUrl = "http://argo-workflows-server.${local.releases["argo-workflows"].namespace}:2746" }
    dask      = { enabled = true, operatorNamespace = local.releases["dask-kubernetes-operator"].namespace }
    jobset    = { enabled = true }
    kueue     = { enabled = true }
    karpenter = { for key, value in local.karpenter : key => value if value != null }
  })
}
