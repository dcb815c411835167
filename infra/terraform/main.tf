# Names that the manifests have too: tests/manifests/test_terraform.py holds them together.

locals {
  namespace          = "nereid"
  service_account    = "nereid"
  publisher_account  = "nereid-publisher"
  ingress            = "nereid-http"
  prefix             = "nereid"
  metrics_namespace  = "monitoring"
  rest_port          = 8080
  grpc_port          = 8081
  pod_identity_agent = "169.254.170.23/32"

  # Below them a body is an image, and of up to TRANSFORMER_MAX_BODY_BYTES. Calls of gRPC have no body for a WAF.
  body_routes = ["/predict/", "/v1/models/", "/v2/models/"]

  # Of the pod of manifests/components/production, and of its quota for 8 pods.
  pod = {
    cpu           = var.gpu_nodes == null ? 2.6 : 6.1
    memory_gib    = var.gpu_nodes == null ? 4.75 : 16.75
    cpu_limit     = var.gpu_nodes == null ? 4 : 7
    memory_limit  = var.gpu_nodes == null ? 6.5 : 18.5
    quota_of_pods = 8
  }

  bucket     = coalesce(var.bucket, "${var.name}-models-${var.account_id}-${var.region}")
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${local.bucket}"
  repository = "s3://${local.bucket}/${local.prefix}"

  tags = merge({ Project = "nereid", ManagedBy = "terraform", Installation = var.name }, var.tags)
}

data "aws_partition" "current" {}
