# Karpenter and the class of EC2 nodes that the NodePools of helm/eo-batch refer to. AWS only.

locals {
  releases = yamldecode(file("${path.module}/../../releases.yaml"))
}

# CRDs as a chart of their own: Helm never upgrades those in a chart's crds/ folder.
resource "helm_release" "crd" {
  name       = "karpenter-crd"
  repository = local.releases["karpenter-crd"].repository
  chart      = local.releases["karpenter-crd"].chart
  version    = local.releases["karpenter-crd"].version
  namespace  = local.releases["karpenter-crd"].namespace
  atomic     = true
}

resource "helm_release" "controller" {
  name       = "karpenter"
  repository = local.releases["karpenter"].repository
  chart      = local.releases["karpenter"].chart
  version    = local.releases["karpenter"].version
  namespace  = local.releases["karpenter"].namespace
  skip_crds  = true
  atomic     = true

  values = [yamlencode({
    controller = {
      env       = [{ name = "AWS_REGION", value = var.region }]
      resources = { requests = { cpu = "250m", memory = "512Mi" }, limits = { memory = "1Gi" } }
    }
    settings = {
      clusterName       = var.cluster_name
      clusterEndpoint   = var.cluster_endpoint
      interruptionQueue = var.interruption_queue
    }
  })]

  depends_on = [helm_release.crd]
}

# A chart of this folder and not a `kubernetes_manifest`: that resource wants the CRD to exist when it plans, so that
# the first apply would fail.
resource "helm_release" "node_class" {
  name      = "eo-batch-node-class"
  chart     = "${path.module}/chart"
  namespace = local.releases["karpenter"].namespace
  atomic    = true

  values = [yamlencode({
    name             = var.node_class.name
    amiAlias         = var.node_class.ami_alias
    instanceProfile  = var.node_class.instance_profile
    subnetIds        = var.node_class.subnet_ids
    securityGroupIds = var.node_class.security_group_ids
    diskGiB          = var.node_class.disk_gib
    tags             = var.node_class.tags
  })]

  depends_on = [helm_release.controller]
}
