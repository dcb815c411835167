# The overlay of this installation, with every value that is known here: `terraform output -raw overlay`. What changes with
# each deployment, its images, is an overlay over it, which this folder writes once.

locals {
  # What the overlay's pods run, by the name that manifests/ has for it: its repository of ours.
  served_images = merge(
    { "nereid/predictor" = "predictor", "nereid/transformer" = "transformer" },
    var.triton == "cpu" ? { "nereid/cpu-triton" = "cpu-triton" } : { "nvcr.io/nvidia/tritonserver" = "tritonserver" },
  )
  job_images = { "nereid/export" = "export" }

  # Tags of manifests/components/images: what `make images` pushes without TAG, and NVIDIA's.
  nereid_tag = "0.1.0"
  triton_tag = "26.11-py3"
  # Of a list of platforms too: skopeo then takes that of our nodes.
  triton_source = var.triton_digest == null ? ":${local.triton_tag}" : "@${var.triton_digest}"

  overlay_images = {
    for kind, images in { serving = local.served_images, jobs = local.job_images } : kind => [
      for name, repository in images : {
        name     = name
        new_name = "${local.registry}/${local.repositories[repository]}"
        pin      = var.image_tag == null ? "newTag: ${local.tags_of[repository]}" : "digest: ${data.aws_ecr_image.pushed[repository].image_digest}"
      }
    ]
  }

  tags_of = {
    for each in keys(local.repositories) : each => each == "tritonserver" ? local.triton_tag : coalesce(var.image_tag, local.nereid_tag)
  }

  # By its own name, so that DNS gives the addresses that the network policy lets out.
  s3_endpoint = "https://bucket${trimprefix(module.endpoints.endpoints["s3"].dns_entry[0].dns_name, "*")}"

  quota = var.pods.max <= local.pods_of_quota && var.gpu_nodes == null ? null : {
    pods = var.pods.max + 12
    # Pods, one more for an update, and jobs.
    cpu          = ceil(local.pod.cpu * (var.pods.max + 1) + 8)
    memory       = ceil(local.pod.memory_gib * (var.pods.max + 1) + 16)
    cpu_limit    = ceil(local.pod.cpu_limit * (var.pods.max + 1) + 16)
    memory_limit = ceil(local.pod.memory_limit_gib * (var.pods.max + 1) + 32)
  }

  of_every_overlay = {
    root               = var.manifests.root
    ref                = var.manifests.ref
    namespace          = local.namespace
    repository         = local.repository
    region             = var.region
    s3_endpoint        = local.s3_endpoint
    s3_addresses       = local.s3_addresses
    pod_identity_agent = local.pod_identity_agent
  }

  overlay = templatefile("${path.module}/templates/overlay.yaml.tftpl", merge(local.of_every_overlay, {
    service_account = local.service_account
    knative         = var.knative
    gpu             = var.gpu_nodes != null
    cpu_triton      = var.triton == "cpu"
    ingress         = local.ingress
    host            = var.host
    annotations     = local.ingress_annotations
    client_subnets  = local.load_balancer_subnets
    rest_port       = local.rest_port
    grpc_port       = local.grpc_port
    nodes           = var.gpu_nodes == null ? "cpu" : "gpu"
    min_pods        = var.pods.min
    max_pods        = var.pods.max
    quota           = local.quota
    has_quota       = local.quota != null
    max_gpus        = try(var.gpu_nodes.max, 0)
  }))

  images_overlay = templatefile("${path.module}/templates/images.yaml.tftpl", { images = local.overlay_images.serving })

  publish_overlay = templatefile("${path.module}/templates/publish.yaml.tftpl", merge(local.of_every_overlay, {
    images = local.overlay_images.jobs
  }))
}

data "aws_ecr_image" "pushed" {
  for_each = var.image_tag == null ? toset([]) : toset(concat(values(local.served_images), values(local.job_images)))

  repository_name = local.repositories[each.value]
  image_tag       = local.tags_of[each.value]
}
