# Values that would fail later, or do harm, are rejected before a plan.

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

run "rejected" {
  command = plan

  variables {
    api_cidrs       = ["0.0.0.0/0"]
    certificate_arn = null
    cpu_nodes       = { instance_types = ["c7i.4xlarge", "c7i.2xlarge"] }
    gpu_nodes       = {}
    triton          = "cpu"
    knative         = true
    logs            = { to = "loki" }
    pods            = { min = 1 }
    pipeline = {
      images_subjects = ["repo:acme/vision:*"]
      models_subjects = ["repo:acme/vision:environment:models"]
    }
  }

  expect_failures = [
    var.api_cidrs,
    var.certificate_arn,
    var.cpu_nodes,
    var.triton,
    var.knative,
    var.logs,
    var.pods,
    var.pipeline,
  ]
}

run "rejected_for_another_reason" {
  command = plan

  variables {
    cpu_nodes       = { disk_gib = 20 }
    host            = "https://vision.example.com"
    client_cidrs    = []
    vpc_cidr        = "10.64.0.0/20"
    zone_id         = "Z0000000000000000000"
    noncurrent_days = 1
    pipeline = {
      images_subjects = ["repo:acme/*:ref:refs/heads/main"]
      models_subjects = ["repo:acme/vision:environment:models"]
    }
  }

  expect_failures = [
    var.cpu_nodes,
    var.host,
    var.client_cidrs,
    var.vpc_cidr,
    var.certificate_arn,
    var.noncurrent_days,
    var.pipeline,
  ]
}

run "rejected_for_its_region" {
  command = plan

  override_data {
    target = data.aws_availability_zones.available
    values = {
      names = ["us-west-1a", "us-west-1c"]
    }
  }

  variables {
    region = "us-west-1"
  }

  expect_failures = [
    data.aws_availability_zones.available,
  ]
}
