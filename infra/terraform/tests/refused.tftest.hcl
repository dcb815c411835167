# Values that would fail later, or do harm, are refused before a plan.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {
  override_during = plan
}

mock_provider "time" {
  override_during = plan
}

mock_provider "tls" {
  override_during = plan
}

variables {
  account_id      = "111122223333"
  region          = "eu-central-1"
  host            = "vision.example.com"
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000"
  client_cidrs    = ["10.0.0.0/8"]
}

run "api_of_the_whole_internet" {
  command = plan

  variables {
    api_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.api_cidrs]
}

run "pipeline_of_any_branch" {
  command = plan

  variables {
    pipeline = {
      images_subjects = ["repo:acme/vision:*"]
      models_subjects = ["repo:acme/vision:environment:models"]
    }
  }

  expect_failures = [var.pipeline]
}

run "pipeline_of_any_repository" {
  command = plan

  variables {
    pipeline = {
      images_subjects = ["repo:acme/*:ref:refs/heads/main"]
      models_subjects = ["repo:acme/vision:environment:models"]
    }
  }

  expect_failures = [var.pipeline]
}

run "neither_certificate_nor_zone" {
  command = plan

  variables {
    certificate_arn = null
  }

  expect_failures = [var.certificate_arn]
}

run "nodes_of_different_sizes" {
  command = plan

  variables {
    cpu_nodes = { instance_types = ["c7i.4xlarge", "c7i.2xlarge"] }
  }

  expect_failures = [var.cpu_nodes]
}

run "disks_without_room_for_images" {
  command = plan

  variables {
    cpu_nodes = { disk_gib = 20 }
  }

  expect_failures = [var.cpu_nodes]
}

run "embedded_triton_on_a_gpu" {
  command = plan

  variables {
    triton    = "cpu"
    gpu_nodes = {}
  }

  expect_failures = [var.triton]
}

run "gpu_on_knative" {
  command = plan

  variables {
    knative   = true
    gpu_nodes = {}
  }

  expect_failures = [var.knative]
}

run "loki_without_an_address" {
  command = plan

  variables {
    logs = { to = "loki" }
  }

  expect_failures = [var.logs]
}

run "one_pod" {
  command = plan

  variables {
    pods = { min = 1 }
  }

  expect_failures = [var.pods]
}
