output "node_class" {
  description = "Reference for NodePools."
  value       = { group = "karpenter.k8s.aws", kind = "EC2NodeClass", name = var.node_class.name }

  depends_on = [helm_release.node_class]
}
