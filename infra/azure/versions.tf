terraform {
  required_version = ">= 1.9"

  required_providers {
    # At least the version whose schema the tests check against; see ../schema.
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.55.0, < 5.0.0"
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

  # State holds names and addresses, and belongs where others can lock it. Make a container for it by hand, once:
  #
  # backend "azurerm" {
  #   resource_group_name  = "tofu-state"
  #   storage_account_name = "mytofustate"
  #   container_name       = "state"
  #   key                  = "eo-batch/azure.tfstate"
  #   use_azuread_auth     = true
  # }
}
