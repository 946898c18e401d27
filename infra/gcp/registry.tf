# Where eo-batch's two images lie.

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84: the images are built from public sources; keys held by Google are enough
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of eo-batch"

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  repository = google_artifact_registry_repository.images.name
  location   = google_artifact_registry_repository.images.location
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}

locals {
  registry = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
  images   = { for kind in ["cpu", "gpu"] : kind => "${local.registry}/eo-batch-${kind}" }
}
