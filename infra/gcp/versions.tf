terraform {
  required_version = ">= 1.9"

  required_providers {
    # At least the version whose schema the tests check against; see ../schema.
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50.0, < 7.0.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = ">= 3.1.1, < 4.0.0"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.38.0, < 3.0.0"
    }
  }

  # State holds names and addresses, and belongs where others can lock it. Make a bucket for it by hand, once:
  #
  # backend "gcs" {
  #   bucket = "my-tofu-state"
  #   prefix = "eo-batch/gcp"
  # }
}
