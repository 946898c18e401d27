# AKS, with the pool that always runs.

resource "azurerm_user_assigned_identity" "cluster" {
  name                = "${var.name}-cluster"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

# AKS puts its nodes into a subnet that is not its own.
resource "azurerm_role_assignment" "cluster_network" {
  scope                = azurerm_virtual_network.main.id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
}

resource "azurerm_kubernetes_cluster" "main" {
  #checkov:skip=CKV_AZURE_4: Log Analytics is billed by the byte of every pod's log; `kubectl logs` and receipts serve, and az aks enable-addons adds it
  #checkov:skip=CKV_AZURE_115: people and CI reach the API from var.api_cidrs without a VPN
  #checkov:skip=CKV_AZURE_116: Pod Security "restricted" on the namespace says what pods may do; the add-on would watch every pod of a run
  #checkov:skip=CKV_AZURE_117: disks are encrypted with keys held by Azure; nodes keep nothing
  #checkov:skip=CKV_AZURE_172: no pod reads secrets from a key vault: identities are federated
  #checkov:skip=CKV_AZURE_226: ephemeral disks need VM sizes with a cache as large as the disk; var.system_vm_size decides
  #checkov:skip=CKV_AZURE_227: encryption at the host has to be registered for a subscription first; disks are encrypted anyway
  #checkov:skip=CKV_AZURE_232: drivers run in the system pool too, so that nothing idle is paid for beside two nodes
  name                = var.name
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  dns_prefix          = var.name
  kubernetes_version  = var.kubernetes_version
  sku_tier            = var.sku_tier
  tags                = local.tags

  # People log in with Entra ID; there is no certificate that nobody can take back.
  local_account_disabled            = true
  role_based_access_control_enabled = true

  # Lets pods exchange their service account's token for one of Entra ID.
  oidc_issuer_enabled       = true
  workload_identity_enabled = true

  automatic_upgrade_channel = "patch"
  node_os_upgrade_channel   = "NodeImage"

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled = true
    tenant_id          = data.azurerm_client_config.current.tenant_id
  }

  api_server_access_profile {
    authorized_ip_ranges = concat(var.api_cidrs, ["${azurerm_public_ip.nat.ip_address}/32"])
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.cluster.id]
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    outbound_type       = "userAssignedNATGateway"
    load_balancer_sku   = "standard"
    pod_cidr            = "10.64.0.0/12"
    service_cidr        = "10.41.0.0/20"
    dns_service_ip      = "10.41.0.10"
  }

  # Idle nodes go after five minutes; a run starts within the time of a VM's boot.
  auto_scaler_profile {
    expander                      = "least-waste"
    scale_down_unneeded           = "5m"
    scale_down_delay_after_add    = "5m"
    skip_nodes_with_system_pods   = false
    skip_nodes_with_local_storage = false
  }

  default_node_pool {
    name                        = "system"
    vm_size                     = var.system_vm_size
    vnet_subnet_id              = azurerm_subnet.nodes.id
    zones                       = var.zones
    auto_scaling_enabled        = true
    min_count                   = 2
    max_count                   = 4
    max_pods                    = 110
    os_disk_size_gb             = 64
    temporary_name_for_rotation = "systemtmp"
    tags                        = local.tags

    upgrade_settings {
      max_surge = "33%"
    }
  }

  lifecycle {
    # The autoscaler's business.
    ignore_changes = [default_node_pool[0].node_count]
  }

  depends_on = [
    azurerm_nat_gateway_public_ip_association.main,
    azurerm_role_assignment.cluster_network,
    azurerm_subnet_nat_gateway_association.nodes,
    azurerm_subnet_network_security_group_association.nodes,
  ]
}

# Whoever applies this installs the prerequisites.
resource "azurerm_role_assignment" "admin" {
  scope                = azurerm_kubernetes_cluster.main.id
  role_definition_name = "Azure Kubernetes Service RBAC Cluster Admin"
  principal_id         = data.azurerm_client_config.current.object_id
}
