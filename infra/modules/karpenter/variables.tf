variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "cluster_endpoint" {
  description = "URL of the cluster's API."
  type        = string

  validation {
    condition     = startswith(var.cluster_endpoint, "https://")
    error_message = "cluster_endpoint has to start with https://."
  }
}

variable "region" {
  description = "AWS region of the cluster: pods can't ask the instance's metadata for it."
  type        = string
}

variable "interruption_queue" {
  description = "Name of the SQS queue on which EC2 announces that it takes back spot instances."
  type        = string
}

variable "node_class" {
  description = "EC2NodeClass of all pools: its name, AMI alias, instance profile, subnets, security groups, disk, tags."
  type = object({
    name               = string
    ami_alias          = string
    instance_profile   = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
    disk_gib           = number
    tags               = map(string)
  })

  validation {
    condition     = length(var.node_class.subnet_ids) > 0 && length(var.node_class.security_group_ids) > 0
    error_message = "node_class needs at least one subnet and one security group."
  }
}
