# What runs inside the cluster before helm/eo-batch, and what that chart has to know of this cloud.

module "prerequisites" {
  source = "../modules/prerequisites"

  namespace = local.namespace
  # GKE runs NVIDIA's device plugin itself.
  device_plugin = false

  depends_on = [google_container_node_pool.system]
}

module "helm_values" {
  source = "../modules/helm-values"

  images = { for kind, image in local.images : kind => "${image}:${var.image_tag}" }
  store  = { url = "gs://${google_storage_bucket.store.name}" }

  # The bucket names the service accounts; they need nothing on themselves.
  identities = { for name in keys(local.accounts) : name => {} }
}
