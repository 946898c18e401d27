# The values of helm/eo-batch that a cloud decides, in one place for all clouds.

locals {
  releases = yamldecode(file("${path.module}/../../releases.yaml"))

  store = {
    url          = var.store.url
    endpoint     = var.store.endpoint
    region       = var.store.region
    azureAccount = var.store.azure_account
  }

  karpenter = { enabled = var.node_class != null, nodeClassRef = var.node_class }

  spot = concat(
    [{ key = "eo-batch.io/spot", operator = "Equal", value = "true", effect = "NoSchedule" }],
    var.spot_tolerations,
  )
  gpu = [{ key = "nvidia.com/gpu", operator = "Equal", value = "present", effect = "NoSchedule" }]

  pools = {
    "cpu-spot"  = local.spot
    "gpu-train" = local.gpu
    "gpu-spot"  = concat(local.gpu, local.spot)
  }
}
