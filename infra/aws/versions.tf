terraform {
  required_version = ">= 1.9"

  required_providers {
    # At least the version whose schema the tests check against; see ../schema.
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25.0, < 7.0.0"
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
  # backend "s3" {
  #   bucket       = "my-tofu-state"
  #   key          = "eo-batch/aws.tfstate"
  #   region       = "us-west-2"
  #   encrypt      = true
  #   use_lockfile = true
  # }
}
