variable "project" {
  description = "Id of the Google Cloud project."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project has to be a project's id (not its name or number): 6 to 30 small letters, digits and dashes."
  }
}

variable "name" {
  description = "Name of the cluster, and start of all other names."
  type        = string
  default     = "eo-batch"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name has to have 3 to 20 small letters, digits or dashes, and to start with a letter."
  }
}

variable "region" {
  description = "Google Cloud region, of the cluster and of the store."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region has to look like europe-west4."
  }
}

variable "zones" {
  description = "Letters of the region's zones that nodes may be in; more of them find more spot capacity. GPUs are not in every zone."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = length(var.zones) > 0 && alltrue([for zone in var.zones : can(regex("^[a-z]$", zone))])
    error_message = "zones has to name at least one zone by its letter, as in [\"a\", \"b\"]."
  }
}

variable "api_cidrs" {
  description = "Addresses from which people and CI reach the cluster's API, as CIDR blocks (curl -s https://checkip.amazonaws.com, then /32)."
  type        = list(string)

  validation {
    condition     = length(var.api_cidrs) > 0 && alltrue([for cidr in var.api_cidrs : can(cidrhost(cidr, 0))])
    error_message = "api_cidrs has to name at least one CIDR block, as in [\"203.0.113.7/32\"]."
  }

  validation {
    condition     = !contains(var.api_cidrs, "0.0.0.0/0")
    error_message = "api_cidrs must not open the cluster's API to everyone."
  }
}

variable "release_channel" {
  description = "How fast GKE moves to new Kubernetes versions. eo-batch's tests run on 1.34."
  type        = string
  default     = "REGULAR"

  validation {
    condition     = contains(["RAPID", "REGULAR", "STABLE"], var.release_channel)
    error_message = "release_channel has to be RAPID, REGULAR or STABLE."
  }
}

variable "system_machine_type" {
  description = "Machine type of the nodes that always run: controllers and drivers. x86-64, as eo-batch's images are."
  type        = string
  default     = "e2-standard-2"
}

variable "cpu_spot" {
  description = "Pool cpu-spot: machine type, largest number of nodes in all zones, disk in GiB."
  type        = object({ machine_type = string, max_nodes = number, disk_gib = number })
  default     = { machine_type = "n2d-standard-8", max_nodes = 100, disk_gib = 100 }

  validation {
    condition     = var.cpu_spot.max_nodes >= 1 && var.cpu_spot.disk_gib >= 50
    error_message = "cpu_spot needs max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "gpu_train" {
  description = "Pool gpu-train, on demand: machine type, GPU type and number a node, largest number of nodes, disk in GiB."
  type        = object({ machine_type = string, gpu_type = string, gpus = number, max_nodes = number, disk_gib = number })
  default     = { machine_type = "g2-standard-24", gpu_type = "nvidia-l4", gpus = 2, max_nodes = 4, disk_gib = 200 }

  validation {
    condition     = var.gpu_train.gpus >= 1 && var.gpu_train.max_nodes >= 1 && var.gpu_train.disk_gib >= 50
    error_message = "gpu_train needs gpus and max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "gpu_spot" {
  description = "Pool gpu-spot: machine type, GPU type and number a node, largest number of nodes, disk in GiB."
  type        = object({ machine_type = string, gpu_type = string, gpus = number, max_nodes = number, disk_gib = number })
  default     = { machine_type = "g2-standard-8", gpu_type = "nvidia-l4", gpus = 1, max_nodes = 20, disk_gib = 100 }

  validation {
    condition     = var.gpu_spot.gpus >= 1 && var.gpu_spot.max_nodes >= 1 && var.gpu_spot.disk_gib >= 50
    error_message = "gpu_spot needs gpus and max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "bucket" {
  description = "Name of the store's bucket; null makes one of project and name."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null || can(regex("^[a-z0-9][a-z0-9_.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket has to be a bucket's name: 3 to 63 small letters, digits, dots, dashes and underscores."
  }
}

variable "store_kms_key" {
  description = "Cloud KMS key that encrypts the store (projects/…/cryptoKeys/…); null uses keys held by Google."
  type        = string
  default     = null
}

variable "abort_uploads_after_days" {
  description = "Age at which parts of unfinished uploads are deleted, days."
  type        = number
  default     = 7

  validation {
    condition     = var.abort_uploads_after_days >= 1
    error_message = "abort_uploads_after_days has to be 1 or more."
  }
}

variable "expire_after_days" {
  description = "Age at which checkpoints (*.ckpt) are deleted, days; null keeps them."
  type        = number
  default     = 30

  validation {
    condition     = var.expire_after_days == null ? true : var.expire_after_days >= 1
    error_message = "expire_after_days has to be 1 or more, or null."
  }
}

variable "protect" {
  description = "Whether to refuse to delete the cluster and a bucket with objects in it. Set it to false, and apply, before destroy."
  type        = bool
  default     = true
}

variable "image_tag" {
  description = "Tag of eo-batch's images in the registry made here."
  type        = string
  default     = "0.1.0"

  validation {
    condition     = can(regex("^[\\w][\\w.-]{0,127}$", var.image_tag))
    error_message = "image_tag has to be an image tag, as in 0.1.0."
  }
}

variable "budget" {
  description = "Monthly budget in the billing account's currency, for this project; billing admins are told at 80 % of it and when the forecast passes it. null makes none. It tells, it stops nothing."
  type        = object({ billing_account = string, amount = number })
  default     = null

  validation {
    condition     = var.budget == null ? true : var.budget.amount >= 1 && can(regex("^[0-9A-F]{6}(-[0-9A-F]{6}){2}$", var.budget.billing_account))
    error_message = "budget needs an amount of 1 or more and a billing account like 012345-6789AB-CDEF01."
  }
}
