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
  value       = { for kind, repository in aws_ecr_repository.images : kind => repository.repository_url }
}

output "store_url" {
  description = "Where runs are kept."
  value       = "s3://${aws_s3_bucket.store.bucket}"
}

output "use_cluster" {
  description = "Command that points kubectl at the cluster."
  value       = "aws eks update-kubeconfig --name ${aws_eks_cluster.main.name} --region ${var.region}"
}
