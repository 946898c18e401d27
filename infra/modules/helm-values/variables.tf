variable "images" {
  description = "Images of eo-batch with tag or digest: cpu (without torch) and gpu."
  type        = object({ cpu = string, gpu = string })

  validation {
    condition     = alltrue([for image in values(var.images) : can(regex("(:[\\w][\\w.-]{0,127}|@sha256:[0-9a-f]{64})$", image))])
    error_message = "images.cpu and images.gpu need a tag or a digest at their end, as in registry/eo-batch-cpu:0.2.0."
  }
}

variable "store" {
  description = "Where runs are kept: its URL, and what a pod needs to find it (null where it needs nothing)."
  type = object({
    url           = string
    endpoint      = optional(string)
    region        = optional(string)
    azure_account = optional(string)
  })

  validation {
    condition     = can(regex("^(s3|gs|az)://[^/]+", var.store.url))
    error_message = "store.url has to start with s3://, gs:// or az:// and a bucket's or container's name."
  }
}

variable "identities" {
  description = "For each service account that reaches the store: annotations, and labels of its pods."
  type = map(object({
    annotations = optional(map(string), {})
    pod_labels  = optional(map(string), {})
  }))

  validation {
    condition     = toset(keys(var.identities)) == toset(["driver", "runner", "web", "workflow"])
    error_message = "identities has to have the keys driver, runner, web and workflow, and no others."
  }
}

variable "spot_tolerations" {
  description = "What pods of spot pools have to tolerate beside eo-batch.io/spot: taints that the cloud adds itself."
  type        = list(object({ key = string, operator = string, value = optional(string), effect = string }))
  default     = []
}

variable "node_class" {
  description = "Karpenter's class of nodes for the chart's NodePools (group, kind, name); null where pools are the cloud's."
  type        = object({ group = string, kind = string, name = string })
  default     = null
}
