# GKE Standard. Not Autopilot: it sets its own security contexts and tolerations on pods, bills GPUs by pod with its own
# classes, and would not keep the pools' labels and taints that the chart and the placement profiles name.

resource "google_service_account" "nodes" {
  account_id   = "${var.name}-nodes"
  display_name = "Nodes of the GKE cluster ${var.name}"

  depends_on = [google_project_service.needed]
}

# Logs and metrics, no more. Pods never get this identity: their metadata server is GKE's.
resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

resource "google_container_cluster" "main" {
  #checkov:skip=CKV_GCP_12: Dataplane V2 (datapath_provider) enforces NetworkPolicies; the add-on that is asked for cannot be on beside it
  #checkov:skip=CKV_GCP_61: flow logs of ten thousand pods that each open hundreds of connections cost more than the run
  #checkov:skip=CKV_GCP_65: groups for RBAC need a Workspace domain, which not everyone has
  #checkov:skip=CKV_GCP_66: images come from this project's registry and from the projects named in ../releases.yaml; attestations are for whoever has a signer
  #checkov:skip=CKV_GCP_69: the nodes of the pool that GKE removes at once never run a pod; every pool below has GKE_METADATA
  name                = var.name
  location            = var.region
  node_locations      = local.zones
  network             = google_compute_network.main.id
  subnetwork          = google_compute_subnetwork.nodes.id
  datapath_provider   = "ADVANCED_DATAPATH"
  networking_mode     = "VPC_NATIVE"
  deletion_protection = var.protect

  # GKE wants one pool at birth; ours are resources of their own.
  remove_default_node_pool = true
  initial_node_count       = 1

  enable_shielded_nodes = true
  resource_labels       = { "eo-batch" = var.name }

  release_channel {
    channel = var.release_channel
  }

  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false
    master_ipv4_cidr_block  = local.control_plane_cidr
  }

  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled = false

    dynamic "cidr_blocks" {
      for_each = var.api_cidrs

      content {
        cidr_block = cidr_blocks.value
      }
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  # New spot nodes go to the cheapest zone, idle ones go soon.
  cluster_autoscaling {
    autoscaling_profile = "OPTIMIZE_UTILIZATION"
  }

  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"]
  }

  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS"]

    managed_prometheus {
      enabled = false
    }
  }

  node_config {
    service_account = google_service_account.nodes.email

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
  }

  lifecycle {
    # Describes the pool that is gone; a change of it would replace the cluster.
    ignore_changes = [node_config, initial_node_count]
  }

  depends_on = [google_project_iam_member.nodes, google_project_service.needed]
}
