# One subnet: nodes without public addresses, NAT for the rest of the world. Cloud Storage is reached over Private Google
# Access, not over NAT.

resource "google_compute_network" "main" {
  name                    = var.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.needed]
}

resource "google_compute_subnetwork" "nodes" {
  #checkov:skip=CKV_GCP_26: flow logs of ten thousand pods that each open hundreds of connections cost more than the run
  name                     = "${var.name}-nodes"
  network                  = google_compute_network.main.id
  region                   = var.region
  ip_cidr_range            = "10.30.0.0/20"
  private_ip_google_access = true

  # A /14 is 2,048 nodes of 64 pods.
  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.32.0.0/14"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.31.0.0/20"
  }
}

locals {
  control_plane_cidr = "172.16.0.0/28"
}

# GKE lets the control plane reach nodes on 443 and 10250 only; the webhooks of Kueue and JobSet listen on 9443.
resource "google_compute_firewall" "webhooks" {
  name                    = "${var.name}-webhooks"
  network                 = google_compute_network.main.id
  description             = "Control plane to the webhooks of controllers"
  direction               = "INGRESS"
  source_ranges           = [local.control_plane_cidr]
  target_service_accounts = [google_service_account.nodes.email]

  allow {
    protocol = "tcp"
    ports    = ["9443"]
  }
}

resource "google_compute_router" "main" {
  name    = var.name
  network = google_compute_network.main.id
  region  = var.region
}

resource "google_compute_router_nat" "main" {
  name                               = var.name
  router                             = google_compute_router.main.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"

  # A pod keeps hundreds of range requests open; 64 ports a node would not do.
  enable_dynamic_port_allocation      = true
  enable_endpoint_independent_mapping = false
  min_ports_per_vm                    = 256
  max_ports_per_vm                    = 8192
}
