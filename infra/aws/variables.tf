variable "name" {
  description = "Name of the cluster, and start of all other names."
  type        = string
  default     = "eo-batch"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name has to have 3 to 32 small letters, digits or dashes, and to start with a letter."
  }
}

variable "region" {
  description = "AWS region. Sentinel-2 COGs of Earth Search lie in us-west-2: from another region, every byte crosses regions."
  type        = string
  default     = "us-west-2"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region has to look like us-west-2."
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

variable "admin_role_arns" {
  description = "IAM roles, beside whoever applies this first, that administer the cluster."
  type        = set(string)
  default     = []
}

variable "vpc_cidr" {
  description = "Addresses of the network. Every pod takes one: a /16 has room for 49,000."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && try(tonumber(split("/", var.vpc_cidr)[1]) <= 20, false)
    error_message = "vpc_cidr has to be a CIDR block of at least a /20."
  }
}

variable "zones" {
  description = "Letters of the two or three availability zones to use; more of them find more spot capacity. Named and not asked for, so that a new or broken zone moves no subnet."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = contains([2, 3], length(var.zones)) && alltrue([for zone in var.zones : can(regex("^[a-z]$", zone))])
    error_message = "zones has to name two or three zones by their letters, as in [\"a\", \"b\"]."
  }
}

variable "nat_gateway_per_zone" {
  description = "Whether each zone has a NAT gateway of its own. One for all costs less when idle; one for each spares cross-zone traffic."
  type        = bool
  default     = false
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

variable "system_instance_types" {
  description = "Instance types of the two nodes that always run: controllers, drivers, Karpenter. x86-64, as eo-batch's images are."
  type        = list(string)
  default     = ["m7a.large", "m6a.large", "m6i.large"]

  validation {
    condition     = length(var.system_instance_types) > 0
    error_message = "system_instance_types has to name at least one instance type."
  }
}

variable "ami_alias" {
  description = "Image of Karpenter's nodes: family@version. Pin the version (al2023@v20260101) once the cluster works, so that nodes change when you say so."
  type        = string
  default     = "al2023@latest"

  validation {
    condition     = can(regex("^(al2023|bottlerocket)@[a-z0-9.]+$", var.ami_alias))
    error_message = "ami_alias has to look like al2023@latest or bottlerocket@v1.44.0."
  }
}

variable "node_disk_gib" {
  description = "Root disk of Karpenter's nodes, GiB: images and, where an instance has no disks of its own, scratch space."
  type        = number
  default     = 100

  validation {
    condition     = var.node_disk_gib >= 50
    error_message = "node_disk_gib has to be 50 or more: the GPU image alone takes some 10."
  }
}

variable "bucket" {
  description = "Name of the store's bucket; null makes one of name, account and region."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket has to be a bucket's name: 3 to 63 small letters, digits, dots and dashes."
  }
}

variable "store_kms_key_arn" {
  description = "KMS key that encrypts the store; null is SSE-S3 (AES-256, keys held by S3, no cost per request)."
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
  description = "Age at which objects tagged eo-batch-expires=yes (checkpoints) are deleted, days; null keeps them."
  type        = number
  default     = 30

  validation {
    condition     = var.expire_after_days == null ? true : var.expire_after_days >= 1
    error_message = "expire_after_days has to be 1 or more, or null."
  }
}

variable "protect" {
  description = "Whether to refuse to delete the cluster, a bucket with objects in it and registries with images in them. Set it to false, and apply, before destroy."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "How long the control plane's logs are kept, days."
  type        = number
  default     = 90

  validation {
    condition     = contains([30, 60, 90, 120, 180, 365, 400], var.log_retention_days)
    error_message = "log_retention_days has to be one of CloudWatch's: 30, 60, 90, 120, 180, 365, 400."
  }
}

variable "image_tag" {
  description = "Tag of eo-batch's images in the registries made here."
  type        = string
  default     = "0.1.0"

  validation {
    condition     = can(regex("^[\\w][\\w.-]{0,127}$", var.image_tag))
    error_message = "image_tag has to be an image tag, as in 0.1.0."
  }
}

variable "budget" {
  description = "Monthly budget in USD, and who is told at 80 % of it and when the forecast passes it; null makes none. It tells, it stops nothing."
  type        = object({ usd = number, email = string })
  default     = null

  validation {
    condition     = var.budget == null ? true : var.budget.usd > 0 && can(regex("^[^@]+@[^@]+$", var.budget.email))
    error_message = "budget needs usd above 0 and an email address."
  }
}
