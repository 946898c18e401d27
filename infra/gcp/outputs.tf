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
  description = "Where runs are kept."
  value       = "gs://${google_storage_bucket.store.name}"
}

output "use_cluster" {
  description = "Command that points kubectl at the cluster."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.main.name} --region ${var.region} --project ${var.project}"
}
