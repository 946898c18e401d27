output "namespace" {
  description = "Namespace of eo-batch; reading it from here means that all prerequisites are installed."
  value       = kubernetes_namespace_v1.eo_batch.metadata[0].name

  depends_on = [helm_release.kueue]
}
