variable "namespace" {
  description = "Namespace of eo-batch; it is created here, so that its Pod Security level is there before any pod."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace has to be a DNS label: small letters, digits and dashes, at most 63."
  }
}

variable "device_plugin" {
  description = "Whether to install NVIDIA's device plugin; false where the cloud runs one itself (GKE)."
  type        = bool
}

variable "gpu_pools" {
  description = "Values of the node label eo-batch.io/pool that mean GPUs: where the device plugin runs."
  type        = list(string)
  default     = ["gpu-train", "gpu-spot"]

  validation {
    condition     = length(var.gpu_pools) > 0
    error_message = "gpu_pools is empty, so the device plugin would run nowhere; set device_plugin = false instead."
  }
}
