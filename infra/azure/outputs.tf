output "helm_values" {
  description = "Values for helm/eo-batch: tofu output -raw helm_values > values.yaml"
  value       = module.helm_values.yaml
}

output "namespace" {
  description = "Namespace to install helm/eo-batch into."
  value       = module.prerequisites.namespace
}

output "registries" {
  description = "Where to push eo-batch's images."
  value       = local.images
}

output "store_url" {
  description = "Where runs are kept; tools outside the cluster need AZURE_STORAGE_ACCOUNT_NAME too."
  value       = "az://${azurerm_storage_container.store.name}"
}

output "store_account" {
  description = "Name of the storage account: AZURE_STORAGE_ACCOUNT_NAME."
  value       = azurerm_storage_account.store.name
}

output "use_cluster" {
  description = "Command that points kubectl at the cluster."
  value       = "az aks get-credentials --resource-group ${azurerm_resource_group.main.name} --name ${azurerm_kubernetes_cluster.main.name} && kubelogin convert-kubeconfig -l azurecli"
}
