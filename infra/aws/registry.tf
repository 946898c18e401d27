# Where eo-batch's two images lie.

resource "aws_ecr_repository" "images" {
  #checkov:skip=CKV_AWS_136: the images are built from public sources; AES-256 by default is enough
  for_each = toset(["cpu", "gpu"])

  name                 = "${var.name}-${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.protect

  image_scanning_configuration {
    scan_on_push = true
  }
}
