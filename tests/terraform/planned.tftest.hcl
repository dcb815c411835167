# One plan of infra/terraform for the test, which creates in an AWS of its own (moto) what is planned here. A value that
# AWS would give is a random word, another one for each resource, so the test can put there what its AWS gave.

mock_provider "aws" {
  source          = "./tests/mocks"

  # Its JSON too: the test renders the statements.
  mock_data "aws_iam_policy_document" {
    defaults = {}
  }

  mock_resource "aws_kms_key" {
    defaults = {}
  }
}

mock_provider "helm" {
}

mock_provider "null" {
}

mock_provider "time" {
}

mock_provider "tls" {
}

run "planned" {
  command = apply

  variables {
    account_id      = "123456789012"
    region          = "eu-central-1"
    host            = "vision.example.com"
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
    client_cidrs    = ["10.0.0.0/8"]
    pipeline = {
      images_subjects = ["repo:acme/vision:ref:refs/heads/main"]
      models_subjects = ["repo:acme/vision:environment:models"]
    }
  }
}
