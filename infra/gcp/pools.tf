# Node pools. Those for work scale to zero: GKE's autoscaler reads labels and taints of an empty pool from its template.

locals {
  # Pools with a taint `nvidia.com/gpu=present:NoSchedule` get it from GKE. Naming it here too is refused ("more than one
  # taint with key nvidia.com/gpu"), and GKE adds it only if the cluster has a pool without GPUs, hence the depends_on.
  pools = {
    "cpu-spot"  = merge(var.cpu_spot, { spot = true, gpu_type = null, gpus = 0 })
    "gpu-train" = merge(var.gpu_train, { spot = false })
    "gpu-spot"  = merge(var.gpu_spot, { spot = true })
  }
}

resource "google_container_node_pool" "system" {
  name           = "system"
  cluster        = google_container_cluster.main.id
  node_locations = local.zones

  autoscaling {
    total_min_node_count = 2
    total_max_node_count = 4
    location_policy      = "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = var.system_machine_type
    image_type      = "COS_CONTAINERD"
    disk_type       = "pd-balanced"
    disk_size_gb    = 50
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
}

resource "google_container_node_pool" "work" {
  #checkov:skip=CKV_GCP_68: on for CPU nodes; off for GPU nodes, where it refuses NVIDIA's driver
  for_each = local.pools

  name               = each.key
  cluster            = google_container_cluster.main.id
  node_locations     = local.zones
  initial_node_count = 0

  # ANY: wherever there is capacity now, rather than evenly over the zones.
  autoscaling {
    total_min_node_count = 0
    total_max_node_count = each.value.max_nodes
    location_policy      = "ANY"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = each.value.machine_type
    image_type      = "COS_CONTAINERD"
    disk_type       = "pd-balanced"
    disk_size_gb    = each.value.disk_gib
    spot            = each.value.spot
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "eo-batch.io/pool" = each.key }

    dynamic "guest_accelerator" {
      for_each = each.value.gpus > 0 ? [each.value] : []

      content {
        type  = guest_accelerator.value.gpu_type
        count = guest_accelerator.value.gpus

        gpu_driver_installation_config {
          gpu_driver_version = "DEFAULT"
        }
      }
    }

    dynamic "taint" {
      for_each = each.value.spot ? ["eo-batch.io/spot"] : []

      content {
        key    = taint.value
        value  = "true"
        effect = "NO_SCHEDULE"
      }
    }

    shielded_instance_config {
      enable_secure_boot          = each.value.gpus == 0
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }

  depends_on = [google_container_node_pool.system]
}
