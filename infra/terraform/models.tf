# The model repository: a bucket with a key of its own, a role that reads it for the synchroniser, one that writes it for
# publishers. The statements are those of manifests/examples/aws.

module "models_key" {
  source  = "terraform-aws-modules/kms/aws"
  version = "4.2.0"

  description             = "Models of ${var.name}"
  aliases                 = ["${var.name}/models"]
  enable_key_rotation     = true
  deletion_window_in_days = var.delete_everything ? 7 : 30
}

module "models" {
  source  = "terraform-aws-modules/s3-bucket/aws"
  version = "5.15.4"

  bucket        = local.bucket
  force_destroy = var.delete_everything

  # Everything public is blocked, and no object has an ACL.
  control_object_ownership = true
  object_ownership         = "BucketOwnerEnforced"

  # What brings a deleted model back.
  versioning = { status = "Enabled" }

  server_side_encryption_configuration = {
    rule = {
      # One call to KMS for many objects: a publish would be thousands.
      bucket_key_enabled = true
      apply_server_side_encryption_by_default = {
        sse_algorithm     = "aws:kms"
        kms_master_key_id = module.models_key.key_arn
      }
    }
  }

  # Not attach_deny_incorrect_kms_key_sse: it would deny uploads that leave the key to the bucket, as ours do.
  attach_deny_insecure_transport_policy     = true
  attach_require_latest_tls_policy          = true
  attach_deny_ssec_encrypted_object_uploads = true

  lifecycle_rule = [
    {
      id      = "noncurrent"
      enabled = true
      noncurrent_version_expiration = {
        days = var.noncurrent_days
      }
      expiration                             = { expired_object_delete_marker = true }
      abort_incomplete_multipart_upload_days = 7
    },
  ]

  logging = {
    target_bucket = module.access_logs.s3_bucket_id
    target_prefix = "s3/${local.bucket}/"
  }
}

# The synchroniser's, by its service account; that no other container of the pod has it is the annotation
# eks.amazonaws.com/skip-containers of manifests/base.
module "reader_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"

  name                    = "${var.name}-models-read"
  use_name_prefix         = false
  description             = "Lists and reads models"
  attach_custom_policy    = true
  policy_statements       = local.reader_statements
  trust_policy_conditions = local.only_account[local.service_account]
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = local.namespace
      service_account = local.service_account
    }
  }
}

# The Job of manifests/jobs/publish.
module "publisher_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"

  name                    = "${var.name}-models-publish"
  use_name_prefix         = false
  description             = "Publishes models"
  attach_custom_policy    = true
  policy_statements       = local.publisher_statements
  trust_policy_conditions = local.only_account[local.publisher_account]
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = local.namespace
      service_account = local.publisher_account
    }
  }
}

locals {
  reader_statements = [
    # Of the whole bucket: with a condition on the prefix S3 says 403, and not 404, of a file that is not there.
    {
      sid       = "List"
      actions   = ["s3:ListBucket"]
      resources = [local.bucket_arn]
    },
    {
      sid       = "Read"
      actions   = ["s3:GetObject"]
      resources = ["${local.bucket_arn}/${local.prefix}/*"]
    },
    {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = [module.models_key.key_arn]
      condition = local.by_s3
    },
  ]

  publisher_statements = [
    {
      sid       = "List"
      actions   = ["s3:ListBucket"]
      resources = [local.bucket_arn]
    },
    {
      sid       = "Write"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"]
      resources = ["${local.bucket_arn}/${local.prefix}/*"]
    },
    {
      sid       = "EncryptAndDecrypt"
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [module.models_key.key_arn]
      condition = local.by_s3
    },
  ]

  by_s3 = [{ test = "StringEquals", variable = "kms:ViaService", values = ["s3.${var.region}.amazonaws.com"] }]

  # No other service account of the cluster, should an association name one.
  only_account = {
    for each in [local.service_account, local.publisher_account] : each => [
      { test = "StringEquals", variable = "aws:RequestTag/kubernetes-namespace", values = [local.namespace] },
      { test = "StringEquals", variable = "aws:RequestTag/kubernetes-service-account", values = [each] },
    ]
  }
}
