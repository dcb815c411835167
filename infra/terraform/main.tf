# Names that the manifests have too: tests/manifests/test_terraform.py holds them together.

locals {
  namespace          = "nereid"
  service_account    = "nereid"
  publisher_account  = "nereid-publisher"
  ingress            = "nereid-http"
  prefix             = "nereid"
  metrics_namespace  = "monitoring"
  logging_namespace  = "nereid-logging"
  rest_port          = 8080
  grpc_port          = 8081
  pod_identity_agent = "169.254.170.23/32"

  # Below them a body is an image, and of up to TRANSFORMER_MAX_BODY_BYTES. Calls of gRPC have no body for a WAF.
  body_routes = ["/predict/", "/v1/models/", "/v2/models/"]

  # Requests and limits of a pod of manifests/components/production, without and with components/gpu.
  pod_sizes = {
    cpu = { cpu = 2.6, memory_gib = 4.75, cpu_limit = 4, memory_limit_gib = 6.5 }
    gpu = { cpu = 6.1, memory_gib = 16.75, cpu_limit = 7, memory_limit_gib = 18.5 }
  }
  pod = local.pod_sizes[var.gpu_nodes == null ? "cpu" : "gpu"]
  # The quota of that component is for so many.
  pods_of_quota = 8

  bucket     = coalesce(var.bucket, "${var.name}-models-${var.account_id}-${var.region}")
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${local.bucket}"
  repository = "s3://${local.bucket}/${local.prefix}"

  tags = merge({ Project = "nereid", ManagedBy = "terraform", Installation = var.name }, var.tags)
}

data "aws_partition" "current" {}
