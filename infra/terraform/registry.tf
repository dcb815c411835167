# Repositories of images, and who of a pipeline may push to them or publish models.

locals {
  # What `make images` builds, and NVIDIA's, which is copied: docs/container-images.md.
  images       = toset(["cpu-triton", "export", "predictor", "standalone", "transformer", "worker"])
  repositories = merge({ for each in local.images : each => "nereid/${each}" }, { tritonserver = "nvidia/tritonserver" })

  registry = "${var.account_id}.dkr.ecr.${var.region}.${data.aws_partition.current.dns_suffix}"
}

module "registry" {
  source   = "terraform-aws-modules/ecr/aws"
  version  = "3.2.0"
  for_each = var.create_registry ? local.repositories : {}

  repository_name                 = each.value
  repository_image_tag_mutability = "IMMUTABLE"
  repository_image_scan_on_push   = true
  repository_encryption_type      = "KMS"
  repository_force_delete         = var.delete_everything
  # Nodes pull with the account's rights.
  create_repository_policy = false
  attach_repository_policy = false

  # Nothing expires: ECR does not know what serves, and signatures and SBOMs are untagged. docs/terraform.md, Upgrade.
  create_lifecycle_policy = false
}

# Once for an account: with create_provider = false where it has this issuer already.
module "pipeline_provider" {
  source  = "terraform-aws-modules/iam/aws//modules/iam-oidc-provider"
  version = "6.5.0"
  count   = try(var.pipeline.create_provider, false) ? 1 : 0

  url            = var.pipeline.issuer
  client_id_list = [var.pipeline.audience]
}

module "pipeline_images_role" {
  source  = "terraform-aws-modules/iam/aws//modules/iam-role"
  version = "6.5.0"
  count   = var.pipeline == null ? 0 : 1

  name                      = "${var.name}-pipeline-images"
  use_name_prefix           = false
  description               = "Pushes images"
  enable_oidc               = true
  oidc_provider_urls        = [var.pipeline.issuer]
  oidc_audiences            = [var.pipeline.audience]
  oidc_subjects             = var.pipeline.images_subjects
  create_inline_policy      = true
  inline_policy_permissions = { for each in local.push_statements : each.sid => each }
}

module "pipeline_models_role" {
  source  = "terraform-aws-modules/iam/aws//modules/iam-role"
  version = "6.5.0"
  count   = var.pipeline == null ? 0 : 1

  name                      = "${var.name}-pipeline-models"
  use_name_prefix           = false
  description               = "Publishes models"
  enable_oidc               = true
  oidc_provider_urls        = [var.pipeline.issuer]
  oidc_audiences            = [var.pipeline.audience]
  oidc_subjects             = var.pipeline.models_subjects
  create_inline_policy      = true
  inline_policy_permissions = { for each in local.publisher_statements : each.sid => each }
}

locals {
  push_statements = [
    # It knows no resource.
    {
      sid       = "Login"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    },
    {
      sid = "Push"
      actions = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:DescribeImages",
        "ecr:DescribeImageScanFindings",
        "ecr:GetDownloadUrlForLayer",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
      ]
      resources = [
        for each in values(local.repositories) :
        "arn:${data.aws_partition.current.partition}:ecr:${var.region}:${var.account_id}:repository/${each}"
      ]
    },
  ]
}
