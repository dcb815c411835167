# The defaults, with what they have to be given. Nothing is made: providers are mocked. A run takes half a minute, so there
# are few, each with many assertions.

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

run "defaults" {
  command = apply

  assert {
    condition     = length(module.vpc.private_subnets) == 3 && length(module.vpc.natgw_ids) == 3
    error_message = "expected three private subnets, each with a NAT gateway"
  }

  assert {
    condition     = output.overlay != "" && alltrue([for each in ["10.64.136.10/32", "10.64.137.10/32", "10.64.138.10/32"] : strcontains(output.overlay, each)])
    error_message = "expected the addresses of S3's endpoint in the overlay, known before anything is made"
  }

  assert {
    condition     = toset([for each in module.endpoints.endpoints["s3"].subnet_configuration : each.ipv4]) == toset(["10.64.136.10", "10.64.137.10", "10.64.138.10"])
    error_message = "expected the same addresses at the endpoint"
  }

  assert {
    condition     = strcontains(output.overlay, "AWS_ENDPOINT_URL_S3=https://bucket.vpce-")
    error_message = "expected the endpoint's own name in the overlay"
  }

  assert {
    condition     = output.repository == "s3://nereid-models-111122223333-eu-central-1/nereid"
    error_message = "expected the bucket's name of account and region"
  }

  assert {
    condition     = length(module.reader_role.associations) == 1 && module.reader_role.associations["this"].service_account == "nereid"
    error_message = "expected the reader's role at one service account"
  }

  assert {
    condition     = module.publisher_role.associations["this"].service_account == "nereid-publisher"
    error_message = "expected the publisher's role at its own service account"
  }

  assert {
    condition     = !contains(flatten([for each in local.reader_statements : each.actions]), "s3:PutObject")
    error_message = "expected a reader that does not write"
  }

  assert {
    condition     = toset(keys(module.eks.eks_managed_node_groups)) == toset(["system", "cpu"])
    error_message = "expected node groups for charts and for pods, and none with GPUs or spot"
  }

  assert {
    condition     = length(helm_release.cluster_autoscaler) == 1 && length(helm_release.karpenter) == 0
    error_message = "expected cluster-autoscaler alone"
  }

  assert {
    condition     = module.eks.cluster_version == local.kubernetes_version
    error_message = "expected the version of versions.tf"
  }

  assert {
    condition     = toset([for each in aws_wafv2_web_acl.edge.rule : each.name]) == toset(["rate", "AWSManagedRulesAmazonIpReputationList", "AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesCommonRuleSet", "body-of-other-routes", "body-too-large"])
    error_message = "expected six rules"
  }

  assert {
    condition     = length(regexall(local.too_large, "100663296")) == 0 && length(regexall(local.too_large, "101000000")) == 1 && length(regexall(local.too_large, "4294967296")) == 1
    error_message = "expected bodies of 96 MiB to pass, and larger ones not"
  }

  assert {
    condition     = strcontains(output.overlay, "alb.ingress.kubernetes.io/scheme: \"internal\"") && strcontains(output.overlay, "cidr: 10.64.136.0/24") && !strcontains(output.overlay, "cidr: 10.64.128.0/24")
    error_message = "expected an internal load balancer, and its subnets alone in the network policy"
  }

  assert {
    condition     = strcontains(output.overlay, aws_wafv2_web_acl.edge.arn) && strcontains(output.overlay, var.certificate_arn)
    error_message = "expected web ACL and certificate at the Ingress"
  }

  assert {
    condition     = length(aws_acm_certificate.host) == 0 && length(helm_release.external_dns) == 0
    error_message = "expected no certificate and no record without a zone"
  }

  assert {
    condition     = strcontains(join("", helm_release.kserve.values), "\"deploymentMode\": \"Standard\"")
    error_message = "expected KServe in Standard mode"
  }

  assert {
    condition     = length(helm_release.knative_serving) == 0 && length(helm_release.nvidia_device_plugin) == 0
    error_message = "expected neither Knative nor a plugin of GPUs"
  }

  assert {
    condition     = length(aws_cloudwatch_log_group.pods) == 1 && strcontains(join("", helm_release.fluent_bit.values), "cloudwatch_logs")
    error_message = "expected logs in CloudWatch"
  }

  assert {
    condition     = !can(regex("nat-ports-3|alb-5xx", join(",", keys(aws_cloudwatch_metric_alarm.this))))
    error_message = "expected no alarm of a load balancer that is not there yet"
  }

  assert {
    condition     = strcontains(output.images, "newTag: 0.1.0") && !strcontains(output.images, "digest:")
    error_message = "expected tags"
  }
}
