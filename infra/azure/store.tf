# The store: one container of a storage account that knows identities only, no keys.
#
# No versioning and no soft delete. A retry writes the same bytes under the same key, so that every retry of every shard
# would be kept and paid for. What a run made can be made again from its frozen plan. Uncommitted blocks, which a killed
# writer leaves, are deleted by Azure itself after a week.

resource "azurerm_storage_account" "store" {
  #checkov:skip=CKV_AZURE_33: no queues are used
  #checkov:skip=CKV_AZURE_59: reached from the nodes' subnet by its service endpoint and from var.api_cidrs; all else is denied
  #checkov:skip=CKV_AZURE_206: LRS unless var.replication says ZRS: what a run made can be made again from its plan
  #checkov:skip=CKV2_AZURE_1: keys held by Azure
  #checkov:skip=CKV2_AZURE_33: the service endpoint keeps traffic in Azure's network; a private endpoint is billed by the byte
  #checkov:skip=CKV2_AZURE_38: no soft delete, see the top of this file
  name                              = local.store_account
  resource_group_name               = azurerm_resource_group.main.name
  location                          = azurerm_resource_group.main.location
  account_tier                      = "Standard"
  account_kind                      = "StorageV2"
  account_replication_type          = var.replication
  access_tier                       = "Hot"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  allow_nested_items_to_be_public   = false
  shared_access_key_enabled         = false
  default_to_oauth_authentication   = true
  cross_tenant_replication_enabled  = false
  infrastructure_encryption_enabled = true
  local_user_enabled                = false
  # Tags of blobs, by which checkpoints expire, do not work in hierarchical namespaces.
  is_hns_enabled = false
  tags           = local.tags

  blob_properties {
    versioning_enabled = false
  }

  network_rules {
    default_action             = "Deny"
    bypass                     = ["AzureServices"]
    virtual_network_subnet_ids = [azurerm_subnet.nodes.id]
    # Storage accounts want single addresses without /32.
    ip_rules = [for cidr in var.api_cidrs : trimsuffix(cidr, "/32")]
  }
}

resource "azurerm_management_lock" "store" {
  count = var.protect ? 1 : 0

  name       = "eo-batch-protect"
  scope      = azurerm_storage_account.store.id
  lock_level = "CanNotDelete"
  notes      = "Holds runs of eo-batch. Set protect = false and apply before destroy."
}

locals {
  store_account = "${replace(var.name, "-", "")}${var.unique}"
}

resource "azurerm_storage_container" "store" {
  #checkov:skip=CKV2_AZURE_21: logs of millions of small reads cost more than the store; diagnostic settings do it when asked for
  name                  = "runs"
  storage_account_id    = azurerm_storage_account.store.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "store" {
  count = var.expire_after_days == null ? 0 : 1

  storage_account_id = azurerm_storage_account.store.id

  rule {
    name    = "eo-batch-expires"
    enabled = true

    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${azurerm_storage_container.store.name}/"]

      match_blob_index_tag {
        name      = "eo-batch-expires"
        operation = "=="
        value     = "yes"
      }
    }

    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.expire_after_days
      }
    }
  }
}
