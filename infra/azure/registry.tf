# Where eo-batch's two images lie.

resource "azurerm_container_registry" "images" {
  #checkov:skip=CKV_AZURE_139: nodes and people reach it over its public address, with Entra ID
  #checkov:skip=CKV_AZURE_163: scanning is Defender for Containers, a paid plan of the subscription
  #checkov:skip=CKV_AZURE_164: signed images are for whoever has a signer
  #checkov:skip=CKV_AZURE_165: one region is enough for what can be pushed again
  #checkov:skip=CKV_AZURE_166: quarantine needs the Premium tier
  #checkov:skip=CKV_AZURE_167: retention needs the Premium tier
  #checkov:skip=CKV_AZURE_233: zones need the Premium tier; images can be pushed again
  #checkov:skip=CKV_AZURE_237: data endpoints need the Premium tier
  name                   = local.store_account
  resource_group_name    = azurerm_resource_group.main.name
  location               = azurerm_resource_group.main.location
  sku                    = "Basic"
  admin_enabled          = false
  anonymous_pull_enabled = false
  tags                   = local.tags
}

resource "azurerm_role_assignment" "pull" {
  scope                = azurerm_container_registry.images.id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_kubernetes_cluster.main.kubelet_identity[0].object_id
}

locals {
  images = { for kind in ["cpu", "gpu"] : kind => "${azurerm_container_registry.images.login_server}/eo-batch-${kind}" }
}
