# The store, and who may use it.
#
# No versioning and no soft delete. A retry writes the same bytes under the same key, so that every retry of every shard
# would be kept and paid for. What a run made can be made again from its frozen plan.

resource "google_storage_bucket" "store" {
  #checkov:skip=CKV_GCP_62: access logs of millions of small reads cost more than the store; Cloud Audit Logs do it when asked for
  #checkov:skip=CKV_GCP_78: no versioning, see the top of this file
  name                        = coalesce(var.bucket, "${var.project}-${var.name}")
  location                    = var.region
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.protect

  versioning {
    enabled = false
  }

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  # A killed writer leaves parts that cost money and that no listing shows.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }

    condition {
      age = var.abort_uploads_after_days
    }
  }

  # Objects have no tags here that a life cycle could go by; checkpoints are the ones whose keys end in .ckpt.
  dynamic "lifecycle_rule" {
    for_each = var.expire_after_days == null ? [] : [var.expire_after_days]

    content {
      action {
        type = "Delete"
      }

      condition {
        age            = lifecycle_rule.value
        matches_suffix = [".ckpt"]
      }
    }
  }

  dynamic "encryption" {
    for_each = var.store_kms_key == null ? [] : [var.store_kms_key]

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.needed]
}

# Workload Identity Federation: the Kubernetes service accounts themselves are named, so that there are no Google service
# accounts in between, no keys, and no annotations.
resource "google_storage_bucket_iam_member" "account" {
  for_each = local.accounts

  bucket = google_storage_bucket.store.name
  role   = each.value == "write" ? "roles/storage.objectUser" : "roles/storage.objectViewer"
  member = join("/", [
    "principal://iam.googleapis.com/projects/${data.google_project.current.number}/locations/global",
    "workloadIdentityPools/${var.project}.svc.id.goog/subject/ns/${local.namespace}/sa/eo-batch-${each.key}",
  ])

  # The identity pool is made with the project's first cluster that uses it.
  depends_on = [google_container_cluster.main]
}
