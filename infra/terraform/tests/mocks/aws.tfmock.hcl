# What a provider that makes nothing responds where the modules read it: shapes as AWS has them.

mock_data "aws_availability_zones" {
  defaults = {
    names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  }
}

mock_data "aws_partition" {
  defaults = {
    partition  = "aws"
    dns_suffix = "amazonaws.com"
  }
}

mock_data "aws_caller_identity" {
  defaults = {
    account_id = "111122223333"
    arn        = "arn:aws:iam::111122223333:role/platform"
  }
}

mock_data "aws_region" {
  defaults = {
    region = "eu-central-1"
    name   = "eu-central-1"
  }
}

mock_data "aws_iam_policy_document" {
  defaults = {
    json = "{\"Version\": \"2012-10-17\", \"Statement\": []}"
  }
}

mock_data "aws_iam_session_context" {
  defaults = {
    issuer_arn = "arn:aws:iam::111122223333:role/platform"
  }
}

mock_data "aws_ecr_image" {
  defaults = {
    image_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000007"
  }
}

mock_data "aws_lbs" {
  defaults = {
    arns = []
  }
}

mock_resource "aws_eks_cluster" {
  defaults = {
    endpoint              = "https://example.gr7.eu-central-1.eks.amazonaws.com"
    certificate_authority = [{ data = "Y2E=" }]
  }
}

mock_resource "aws_vpc_endpoint" {
  defaults = {
    dns_entry = [{ dns_name = "*.vpce-0123456789abcdef0-abcdefgh.s3.eu-central-1.vpce.amazonaws.com", hosted_zone_id = "Z0" }]
  }
}

mock_resource "aws_acm_certificate" {
  defaults = {
    arn = "arn:aws:acm:eu-central-1:111122223333:certificate/11111111-1111-1111-1111-111111111111"
    domain_validation_options = [
      { domain_name = "a", resource_record_name = "_a", resource_record_type = "CNAME", resource_record_value = "a." },
      { domain_name = "b", resource_record_name = "_b", resource_record_type = "CNAME", resource_record_value = "b." },
    ]
  }
}

mock_resource "aws_wafv2_web_acl" {
  defaults = {
    arn = "arn:aws:wafv2:eu-central-1:111122223333:regional/webacl/nereid/22222222-2222-2222-2222-222222222222"
  }
}

mock_resource "aws_kms_key" {
  defaults = {
    arn = "arn:aws:kms:eu-central-1:111122223333:key/33333333-3333-3333-3333-333333333333"
  }
}
