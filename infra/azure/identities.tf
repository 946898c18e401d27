# Who may do what. Pods exchange the token of their service account for one of an Entra ID identity (workload identity
# federation): no keys, no secrets.

resource "azurerm_user_assigned_identity" "account" {
  for_each = local.accounts

  name                = "${var.name}-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

resource "azurerm_federated_identity_credential" "account" {
  for_each = local.accounts

  name                = "eo-batch-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  parent_id           = azurerm_user_assigned_identity.account[each.key].id
  issuer              = azurerm_kubernetes_cluster.main.oidc_issuer_url
  subject             = "system:serviceaccount:${local.namespace}:eo-batch-${each.key}"
  audience            = ["api://AzureADTokenExchange"]
}

# A role of our own: "Storage Blob Data Contributor" may not write tags, by which checkpoints expire, and "Storage Blob
# Data Owner", which may, also gives rights to others.
resource "azurerm_role_definition" "store" {
  name        = "${var.name}-${var.unique}-store"
  scope       = azurerm_resource_group.main.id
  description = "Read, write and tag the blobs of eo-batch's store"

  permissions {
    actions = ["Microsoft.Storage/storageAccounts/blobServices/containers/read"]

    data_actions = [
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags/read",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags/write",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
    ]
  }

  assignable_scopes = [azurerm_resource_group.main.id]
}

# People who apply this may look into the store, too.
resource "azurerm_role_assignment" "store" {
  for_each = merge(
    { for name, rights in local.accounts : name => azurerm_user_assigned_identity.account[name].principal_id if rights == "write" },
    { operator = data.azurerm_client_config.current.object_id },
  )

  scope              = azurerm_storage_account.store.id
  role_definition_id = azurerm_role_definition.store.role_definition_resource_id
  principal_id       = each.value
}

# Who shows what is in the store changes nothing there.
resource "azurerm_role_assignment" "store_read" {
  for_each = { for name, rights in local.accounts : name => azurerm_user_assigned_identity.account[name].principal_id if rights == "read" }

  scope                = azurerm_storage_account.store.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = each.value
}
