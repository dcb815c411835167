# What variables change; those that do not touch each other in one run.

mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "helm" {}

mock_provider "time" {}

mock_provider "tls" {}

mock_provider "cloudinit" {}

mock_provider "null" {}

variables {
  account_id      = "111122223333"
  region          = "eu-central-1"
  host            = "vision.example.com"
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000"
  client_cidrs    = ["10.0.0.0/8"]
}

run "karpenter_loki_and_images_by_digest" {
  command = apply

  variables {
    image_tag         = "0.1.0"
    triton            = "cpu"
    autoscaler        = "karpenter"
    cpu_nodes         = { spot_max = 4 }
    logs              = { to = "loki", loki_host = "loki-gateway.loki.svc" }
    pods              = { min = 24, max = 64 }
    create_registry   = false
    delete_everything = true
  }

  override_data {
    target = data.aws_lbs.edge
    values = {
      arns = ["arn:aws:elasticloadbalancing:eu-central-1:111122223333:loadbalancer/app/nereid/0123456789abcdef"]
    }
  }

  assert {
    condition     = strcontains(output.overlay, "components/cpu-triton") && !strcontains(output.images, "tritonserver")
    error_message = "expected the embedded Triton"
  }

  assert {
    condition     = length(regexall("digest: sha256:", output.images)) == 3 && length(regexall("newTag|digest", output.overlay)) == 0
    error_message = "expected a digest for each image of the pod, in the overlay of images alone"
  }

  assert {
    condition     = toset(keys(module.eks.eks_managed_node_groups)) == toset(["system"]) && length(helm_release.cluster_autoscaler) == 0
    error_message = "expected a node group for charts alone"
  }

  assert {
    condition     = length(helm_release.karpenter) == 1 && strcontains(join("", helm_release.node_pools[0].values), "spot")
    error_message = "expected node pools, with spot"
  }

  assert {
    condition     = length(aws_cloudwatch_log_group.pods) == 0 && length(module.fluent_bit_role) == 0
    error_message = "expected no log group of pods, and no role to write it"
  }

  assert {
    condition     = strcontains(join("", helm_release.fluent_bit.values), "loki-gateway.loki.svc")
    error_message = "expected Loki's address"
  }

  assert {
    condition     = strcontains(output.overlay, "kind: ResourceQuota") && strcontains(output.overlay, "value: 64") && strcontains(output.overlay, "pods: \"76\"")
    error_message = "expected a quota that holds them"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["alb-5xx"].dimensions["LoadBalancer"] == "app/nereid/0123456789abcdef"
    error_message = "expected alarms of the load balancer that the overlay made"
  }

  assert {
    condition     = length(module.registry) == 0
    error_message = "expected repositories of another installation"
  }

  assert {
    condition     = strcontains(output.overlay, "deletion_protection.enabled=false")
    error_message = "expected a load balancer that can be deleted"
  }
}

run "gpus_on_the_internet_with_a_pipeline" {
  command = apply

  variables {
    gpu_nodes       = {}
    pods            = { min = 2, max = 2 }
    certificate_arn = null
    zone_id         = "Z0000000000000000000"
    internet_facing = true
    pipeline = {
      images_subjects = ["repo:acme/vision:ref:refs/heads/main"]
      models_subjects = ["repo:acme@123456/vision@456789:environment:production"]
    }
  }

  assert {
    condition     = module.eks.eks_managed_node_groups["gpu"].node_group_taints != null && local.node_groups["gpu"].taints["gpu"].key == "nvidia.com/gpu"
    error_message = "expected tainted nodes"
  }

  assert {
    condition     = length(helm_release.nvidia_device_plugin) == 1 && length(aws_efs_mount_target.engines) == 3
    error_message = "expected the plugin, and a volume in every zone"
  }

  assert {
    condition     = strcontains(output.overlay, "components/gpu") && strcontains(output.overlay, "requests.nvidia.com/gpu: \"2\"")
    error_message = "expected the component, and GPUs in the quota"
  }

  assert {
    condition     = length(aws_route53_record.validation) == 1 && length(helm_release.external_dns) == 1
    error_message = "expected the certificate's record, and external-dns for the host's"
  }

  assert {
    condition     = strcontains(output.overlay, "internet-facing") && strcontains(output.overlay, "cidr: 10.64.128.0/24")
    error_message = "expected the public subnets in the network policy"
  }

  assert {
    condition     = length(module.pipeline_images_role) == 1 && length(module.pipeline_models_role) == 1
    error_message = "expected a role for images and one for models"
  }

  assert {
    condition     = !contains(flatten([for each in local.push_statements : each.actions]), "s3:PutObject")
    error_message = "expected images to be pushed by a role that does not write models"
  }
}

run "knative" {
  command = apply

  variables {
    knative = true
  }

  assert {
    condition     = strcontains(output.overlay, "overlays/serverless") && !strcontains(output.overlay, "kind: Ingress")
    error_message = "expected the overlay of Knative, without an Ingress"
  }

  assert {
    condition     = strcontains(join("", helm_release.kserve.values), "\"deploymentMode\": \"Knative\"") && strcontains(join("", helm_release.knative_serving[0].values), "*.nereid.vision.example.com")
    error_message = "expected KServe on Knative, and its hosts at the load balancer"
  }

  assert {
    condition     = output.url == "https://nereid-predictor.nereid.vision.example.com"
    error_message = "expected Knative's host"
  }
}
