# eo-batch on Azure: AKS with pools that scale to zero, a storage account, and who may do what. See README.md.

provider "azurerm" {
  subscription_id = var.subscription_id

  # The storage account has no keys to use.
  storage_use_azuread = true

  features {}
}

provider "kubernetes" {
  host                   = azurerm_kubernetes_cluster.main.kube_config[0].host
  cluster_ca_certificate = base64decode(azurerm_kubernetes_cluster.main.kube_config[0].cluster_ca_certificate)

  exec {
    api_version = "client.authentication.k8s.io/v1beta1"
    command     = "kubelogin"
    args        = local.kubelogin
  }
}

provider "helm" {
  kubernetes = {
    host                   = azurerm_kubernetes_cluster.main.kube_config[0].host
    cluster_ca_certificate = base64decode(azurerm_kubernetes_cluster.main.kube_config[0].cluster_ca_certificate)

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "kubelogin"
      args        = local.kubelogin
    }
  }
}

data "azurerm_client_config" "current" {}

locals {
  # The id of the application "Azure Kubernetes Service AAD Server", the same in every tenant.
  kubelogin = ["get-token", "--login", "azurecli", "--server-id", "6dae42f8-4368-4678-94ff-3960e28e3630"]

  namespace = "eo-batch"
  tags      = { "eo-batch" = var.name }

  # Service accounts of helm/eo-batch, and what they may do with the store. The sweeper deletes Kubernetes objects only.
  accounts = { driver = "write", runner = "write", web = "read", workflow = "write" }
}

resource "azurerm_resource_group" "main" {
  name     = var.name
  location = var.region
  tags     = local.tags
}

