# What runs inside the cluster before helm/eo-batch, and what that chart has to know of this cloud.

module "prerequisites" {
  source = "../modules/prerequisites"

  namespace     = local.namespace
  device_plugin = true

  depends_on = [azurerm_role_assignment.admin]
}

module "helm_values" {
  source = "../modules/helm-values"

  images = { for kind, image in local.images : kind => "${image}:${var.image_tag}" }

  store = {
    url           = "az://${azurerm_storage_container.store.name}"
    azure_account = azurerm_storage_account.store.name
  }

  identities = {
    for name, identity in azurerm_user_assigned_identity.account : name => {
      annotations = { "azure.workload.identity/client-id" = identity.client_id }
      # Pods without it get no token, whatever their service account says.
      pod_labels = { "azure.workload.identity/use" = "true" }
    }
  }

  spot_tolerations = [
    { key = "kubernetes.azure.com/scalesetpriority", operator = "Equal", value = "spot", effect = "NoSchedule" },
  ]
}
