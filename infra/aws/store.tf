# The store: what `eo-batch store init` sets up, with the same rules under the same names, so that either can run first.
#
# No versioning. A retry writes the same bytes under the same key, so that every retry of every shard would be kept and
# paid for; and with versions, expiry only hides a checkpoint. What a run made can be made again from its frozen plan.

resource "aws_s3_bucket" "store" {
  #checkov:skip=CKV_AWS_18: access logs of millions of small reads cost more than the store; CloudTrail data events do it when asked for
  #checkov:skip=CKV_AWS_21: no versioning, see the top of this file
  #checkov:skip=CKV_AWS_144: no copy in another region: what a run made can be made again from its plan
  #checkov:skip=CKV2_AWS_62: nothing listens for events; receipts say what is done
  bucket        = coalesce(var.bucket, "${var.name}-${local.account}-${var.region}")
  force_destroy = !var.protect
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket = aws_s3_bucket.store.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    # A bucket key spares one KMS request for every object.
    bucket_key_enabled = var.store_kms_key_arn == null ? null : true

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.store_kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.store_kms_key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  #checkov:skip=CKV_AWS_300: the first rule does it; the check loses sight of it beside a dynamic one
  bucket = aws_s3_bucket.store.id

  # A killed writer leaves parts that cost money and that no listing shows.
  rule {
    id     = "eo-batch-unfinished-uploads"
    status = "Enabled"

    filter {
      prefix = ""
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = var.abort_uploads_after_days
    }
  }

  dynamic "rule" {
    for_each = var.expire_after_days == null ? [] : [var.expire_after_days]

    content {
      id     = "eo-batch-expires"
      status = "Enabled"

      filter {
        tag {
          key   = "eo-batch-expires"
          value = "yes"
        }
      }

      expiration {
        days = rule.value
      }
    }
  }
}

data "aws_iam_policy_document" "encrypted_transport" {
  statement {
    sid       = "EncryptedTransportOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.store.arn, "${aws_s3_bucket.store.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "store" {
  bucket = aws_s3_bucket.store.id
  policy = data.aws_iam_policy_document.encrypted_transport.json

  depends_on = [aws_s3_bucket_public_access_block.store]
}
