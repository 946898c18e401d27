# Node pools for work. All scale to zero: AKS's autoscaler reads labels and taints of an empty pool from its template.

locals {
  spot_taint = "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"

  pools = {
    "cpu-spot"  = merge(var.cpu_spot, { spot = true, gpu = false })
    "gpu-train" = merge(var.gpu_train, { spot = false, gpu = true })
    "gpu-spot"  = merge(var.gpu_spot, { spot = true, gpu = true })
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "work" {
  #checkov:skip=CKV_AZURE_227: encryption at the host has to be registered for a subscription first; disks are encrypted anyway
  for_each = local.pools

  # AKS takes no dashes.
  name                  = replace(each.key, "-", "")
  kubernetes_cluster_id = azurerm_kubernetes_cluster.main.id
  mode                  = "User"
  vm_size               = each.value.vm_size
  vnet_subnet_id        = azurerm_subnet.nodes.id
  zones                 = var.zones
  os_disk_size_gb       = each.value.disk_gib
  max_pods              = 110
  gpu_driver            = each.value.gpu ? "Install" : null
  tags                  = local.tags

  auto_scaling_enabled = true
  min_count            = 0
  max_count            = each.value.max_nodes

  # -1: up to the price on demand, so that nodes go for lack of capacity only.
  priority        = each.value.spot ? "Spot" : "Regular"
  eviction_policy = each.value.spot ? "Delete" : null
  spot_max_price  = each.value.spot ? -1 : null

  # AKS adds its own label and taint to spot nodes. They stand here too, else every plan would want to remove them.
  node_labels = merge(
    { "eo-batch.io/pool" = each.key },
    each.value.spot ? { "kubernetes.azure.com/scalesetpriority" = "spot" } : {},
  )
  node_taints = concat(
    each.value.gpu ? ["nvidia.com/gpu=present:NoSchedule"] : [],
    each.value.spot ? ["eo-batch.io/spot=true:NoSchedule", local.spot_taint] : [],
  )

  lifecycle {
    # The autoscaler's business.
    ignore_changes = [node_count]
  }
}
