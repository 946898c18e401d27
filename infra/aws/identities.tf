# Who may do what. Pods get their rights by EKS Pod Identity and not by IRSA: the trust stands here beside the rights, no
# OIDC provider has to be made for each cluster, and no annotation can be forgotten or copied to another account.

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# Two roles: EKS itself lets the nodes of its node groups in, those of Karpenter need the access entry below.
resource "aws_iam_role" "node" {
  for_each = toset(["system", "karpenter"])

  name               = "${var.name}-node-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = {
    for pair in setproduct(["system", "karpenter"], ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"]) :
    join("-", pair) => { role = pair[0], policy = pair[1] }
  }

  role       = aws_iam_role.node[each.value.role].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value.policy}"
}

resource "aws_iam_instance_profile" "karpenter_node" {
  name = "${var.name}-node-karpenter"
  role = aws_iam_role.node["karpenter"].name
}

resource "aws_eks_access_entry" "karpenter_node" {
  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_iam_role.node["karpenter"].arn
  type          = "EC2_LINUX"
}

# Only pods of one service account in one namespace of this cluster: Pod Identity says who asks as tags of the request.
data "aws_iam_policy_document" "pod_trust" {
  for_each = {
    "driver"    = { namespace = local.namespace, service_account = "eo-batch-driver" }
    "runner"    = { namespace = local.namespace, service_account = "eo-batch-runner" }
    "workflow"  = { namespace = local.namespace, service_account = "eo-batch-workflow" }
    "web"       = { namespace = local.namespace, service_account = "eo-batch-web" }
    "karpenter" = { namespace = "kube-system", service_account = "karpenter" }
    "vpc-cni"   = { namespace = "kube-system", service_account = "aws-node" }
  }

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.name]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [each.value.namespace]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [each.value.service_account]
    }
  }
}

resource "aws_iam_role" "network_plugin" {
  name               = "${var.name}-vpc-cni"
  assume_role_policy = data.aws_iam_policy_document.pod_trust["vpc-cni"].json
}

resource "aws_iam_role_policy_attachment" "network_plugin" {
  role       = aws_iam_role.network_plugin.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKS_CNI_Policy"
}

# What a Store does with its bucket, and nothing else. Tags are what the life cycle of checkpoints goes by.
data "aws_iam_policy_document" "store" {
  statement {
    sid       = "List"
    actions   = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.store.arn]
  }

  statement {
    sid = "ReadAndWrite"
    actions = [
      "s3:AbortMultipartUpload",
      "s3:DeleteObject",
      "s3:GetObject",
      "s3:ListMultipartUploadParts",
      "s3:PutObject",
      "s3:PutObjectTagging",
    ]
    resources = ["${aws_s3_bucket.store.arn}/*"]
  }

  dynamic "statement" {
    for_each = var.store_kms_key_arn == null ? [] : [var.store_kms_key_arn]

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "store" {
  name        = "${var.name}-store"
  description = "Read and write the store of eo-batch"
  policy      = data.aws_iam_policy_document.store.json
}

# Who shows what is in the store changes nothing there.
data "aws_iam_policy_document" "store_read" {
  statement {
    sid       = "List"
    actions   = ["s3:GetBucketLocation", "s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.store.arn}/*"]
  }

  dynamic "statement" {
    for_each = var.store_kms_key_arn == null ? [] : [var.store_kms_key_arn]

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "store_read" {
  name        = "${var.name}-store-read"
  description = "Read the store of eo-batch"
  policy      = data.aws_iam_policy_document.store_read.json
}

# Roles of their own also where rights are the same: CloudTrail then tells what the driver wrote from what shards wrote.
resource "aws_iam_role" "account" {
  for_each = local.accounts

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.pod_trust[each.key].json
}

resource "aws_iam_role_policy_attachment" "account" {
  for_each = local.accounts

  role       = aws_iam_role.account[each.key].name
  policy_arn = each.value == "write" ? aws_iam_policy.store.arn : aws_iam_policy.store_read.arn
}

resource "aws_eks_pod_identity_association" "account" {
  for_each = aws_iam_role.account

  cluster_name    = aws_eks_cluster.main.name
  namespace       = local.namespace
  service_account = "eo-batch-${each.key}"
  role_arn        = each.value.arn
}
