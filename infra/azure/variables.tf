variable "subscription_id" {
  description = "Id of the Azure subscription (az account show --query id --output tsv)."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "subscription_id has to be a UUID in small letters."
  }
}

variable "name" {
  description = "Name of the resource group and of the cluster, and start of all other names."
  type        = string
  default     = "eo-batch"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name has to have 3 to 20 small letters, digits or dashes, and to start with a letter."
  }
}

variable "unique" {
  description = "A few letters that make the names of storage account and registry unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,10}$", var.unique))
    error_message = "unique has to have 3 to 10 small letters or digits."
  }
}

variable "region" {
  description = "Azure region, of the cluster and of the store. The Planetary Computer's data lie in westeurope."
  type        = string
  default     = "westeurope"

  validation {
    condition     = can(regex("^[a-z]+[0-9]?$", var.region))
    error_message = "region has to look like westeurope."
  }
}

variable "api_cidrs" {
  description = "Addresses from which people and CI reach the cluster's API and the store, as CIDR blocks (curl -s https://checkip.amazonaws.com, then /32)."
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

variable "kubernetes_version" {
  description = "Kubernetes version of the cluster. eo-batch's tests run on 1.34."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version has to look like 1.34."
  }
}

variable "sku_tier" {
  description = "Tier of AKS: Standard has an uptime agreement and room for large clusters; Free costs nothing and is for trying out."
  type        = string
  default     = "Standard"

  validation {
    condition     = contains(["Free", "Standard"], var.sku_tier)
    error_message = "sku_tier has to be Free or Standard."
  }
}

variable "zones" {
  description = "Availability zones that nodes may be in; more of them find more capacity. GPU sizes are not in every zone."
  type        = list(string)
  default     = ["1", "2", "3"]

  validation {
    condition     = alltrue([for zone in var.zones : contains(["1", "2", "3"], zone)])
    error_message = "zones may hold \"1\", \"2\" and \"3\"; [] is for regions without zones."
  }
}

variable "system_vm_size" {
  description = "VM size of the two nodes that always run: controllers and drivers. x86-64, as eo-batch's images are."
  type        = string
  default     = "Standard_D2s_v5"
}

variable "cpu_spot" {
  description = "Pool cpu-spot: VM size, largest number of nodes, disk in GiB."
  type        = object({ vm_size = string, max_nodes = number, disk_gib = number })
  default     = { vm_size = "Standard_D8as_v5", max_nodes = 100, disk_gib = 128 }

  validation {
    condition     = var.cpu_spot.max_nodes >= 1 && var.cpu_spot.disk_gib >= 50
    error_message = "cpu_spot needs max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "gpu_train" {
  description = "Pool gpu-train, on demand: VM size (of an NVIDIA series), largest number of nodes, disk in GiB."
  type        = object({ vm_size = string, max_nodes = number, disk_gib = number })
  default     = { vm_size = "Standard_NC24ads_A100_v4", max_nodes = 4, disk_gib = 256 }

  validation {
    condition     = var.gpu_train.max_nodes >= 1 && var.gpu_train.disk_gib >= 50
    error_message = "gpu_train needs max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "gpu_spot" {
  description = "Pool gpu-spot: VM size (of an NVIDIA series), largest number of nodes, disk in GiB."
  type        = object({ vm_size = string, max_nodes = number, disk_gib = number })
  default     = { vm_size = "Standard_NC4as_T4_v3", max_nodes = 20, disk_gib = 128 }

  validation {
    condition     = var.gpu_spot.max_nodes >= 1 && var.gpu_spot.disk_gib >= 50
    error_message = "gpu_spot needs max_nodes of 1 or more and disk_gib of 50 or more."
  }
}

variable "replication" {
  description = "Copies of the store's data: LRS keeps three in one data centre, ZRS one in each of three zones."
  type        = string
  default     = "LRS"

  validation {
    condition     = contains(["LRS", "ZRS"], var.replication)
    error_message = "replication has to be LRS or ZRS."
  }
}

variable "expire_after_days" {
  description = "Age at which blobs tagged eo-batch-expires=yes (checkpoints) are deleted, days; null keeps them."
  type        = number
  default     = 30

  validation {
    condition     = var.expire_after_days == null ? true : var.expire_after_days >= 1
    error_message = "expire_after_days has to be 1 or more, or null."
  }
}

variable "protect" {
  description = "Whether a lock keeps the storage account from being deleted. Set it to false, and apply, before destroy."
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
  description = "Monthly budget in the subscription's currency, who is told at 80 % of it and when the forecast passes it, and the month it starts (2026-12-01T00:00:00Z). null makes none. It tells, it stops nothing."
  type        = object({ amount = number, email = string, start = string })
  default     = null

  validation {
    condition     = var.budget == null ? true : var.budget.amount > 0 && can(regex("^[^@]+@[^@]+$", var.budget.email)) && can(regex("^[0-9]{4}-[0-9]{2}-01T00:00:00Z$", var.budget.start))
    error_message = "budget needs an amount above 0, an email address, and a start like 2026-12-01T00:00:00Z."
  }
}
