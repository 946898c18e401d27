# What runs inside the cluster before helm/eo-batch, and what that chart has to know of this cloud.

module "prerequisites" {
  source = "../modules/prerequisites"

  namespace     = local.namespace
  device_plugin = true

  depends_on = [aws_eks_addon.coredns]
}

module "helm_values" {
  source = "../modules/helm-values"

  images = { for kind, repository in aws_ecr_repository.images : kind => "${repository.repository_url}:${var.image_tag}" }
  store  = { url = "s3://${aws_s3_bucket.store.bucket}", region = var.region }

  # Pod Identity needs nothing on the service account itself.
  identities = { for name in keys(local.accounts) : name => {} }

  node_class = module.karpenter.node_class
}
