# Three zones. Nodes and pods are in private subnets; load balancers of the VPC have small ones of their own, by which the
# network policy knows them; public ones have NAT gateways and, where wanted, the load balancer.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:only the first three are taken, in the order of their names, to which AWS adds at the end
  # EKS takes no subnet in these.
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  # Without local zones.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 3
      error_message = "region: got ${var.region}, where EKS takes ${length(self.names)} zones (${join(", ", self.names)}), expected a region with three or more."
    }
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, 3)

  private_subnets = [for each in range(3) : cidrsubnet(var.vpc_cidr, 3, each)]
  public_subnets  = [for each in range(3) : cidrsubnet(var.vpc_cidr, 8, 128 + each)]
  # Of internal load balancers and of S3's endpoint.
  edge_subnets = [for each in range(3) : cidrsubnet(var.vpc_cidr, 8, 136 + each)]

  load_balancer_subnets = var.internet_facing ? local.public_subnets : local.edge_subnets

  # Addresses that stay, for a network policy: chosen here, so that they are known before anything is made.
  s3_addresses = [for each in local.edge_subnets : cidrhost(each, 10)]
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "6.6.0"

  name = var.name
  cidr = var.vpc_cidr
  azs  = local.zones

  private_subnets     = local.private_subnets
  public_subnets      = local.public_subnets
  intra_subnets       = local.edge_subnets
  intra_subnet_suffix = "edge"

  enable_nat_gateway     = true
  single_nat_gateway     = var.nat == "single"
  one_nat_gateway_per_az = var.nat == "per-zone"

  public_subnet_tags = { "kubernetes.io/role/elb" = 1 }
  intra_subnet_tags  = { "kubernetes.io/role/internal-elb" = 1 }
  private_subnet_tags = {
    "karpenter.sh/discovery" = var.name
  }

  enable_flow_log                                 = true
  create_flow_log_cloudwatch_log_group            = true
  create_flow_log_cloudwatch_iam_role             = true
  flow_log_traffic_type                           = "REJECT"
  flow_log_cloudwatch_log_group_name_suffix       = var.name
  flow_log_cloudwatch_log_group_retention_in_days = var.logs.days
  flow_log_cloudwatch_log_group_kms_key_id        = module.observability_key.key_arn
}

module "endpoints" {
  source  = "terraform-aws-modules/vpc/aws//modules/vpc-endpoints"
  version = "6.6.0"

  vpc_id = module.vpc.vpc_id

  endpoints = merge(
    {
      # Layers of images, free of charge: for nodes, by the public names of S3.
      s3-gateway = {
        service         = "s3"
        service_type    = "Gateway"
        route_table_ids = module.vpc.private_route_table_ids
        tags            = { Name = "${var.name}-s3-gateway" }
      }
      # For the synchroniser and the publisher, by a name of its own (AWS_ENDPOINT_URL_S3): its addresses stay, as a
      # network policy needs them, and its policy names the models' bucket alone. Without private DNS, or the layers of
      # images would come by it, and be billed.
      s3 = {
        service             = "s3"
        private_dns_enabled = false
        subnet_ids          = module.vpc.intra_subnets
        security_group_ids  = [aws_security_group.s3_endpoint.id]
        policy              = data.aws_iam_policy_document.s3_endpoint.json
        subnet_configurations = [
          for index, address in local.s3_addresses : { ipv4 = address, subnet_id = module.vpc.intra_subnets[index] }
        ]
        tags = { Name = "${var.name}-s3" }
      }
    },
    {
      for each in var.interface_endpoints : each => {
        service             = each
        private_dns_enabled = true
        subnet_ids          = module.vpc.private_subnets
        security_group_ids  = [aws_security_group.endpoints.id]
        tags                = { Name = "${var.name}-${each}" }
      }
    },
  )
}

data "aws_iam_policy_document" "s3_endpoint" {
  statement {
    sid       = "Models"
    actions   = ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [local.bucket_arn, "${local.bucket_arn}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [var.account_id]
    }
  }
}

resource "aws_security_group" "endpoints" {
  #checkov:skip=CKV2_AWS_5:it is attached by the module of the endpoints, which is not followed
  name_prefix = "${var.name}-endpoints-"
  description = "Interface endpoints of AWS services"
  vpc_id      = module.vpc.vpc_id
  tags        = { Name = "${var.name}-endpoints" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id = aws_security_group.endpoints.id
  description       = "HTTPS from nodes and pods"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = var.vpc_cidr
}

resource "aws_security_group" "s3_endpoint" {
  #checkov:skip=CKV2_AWS_5:it is attached by the module of the endpoints, which is not followed
  name_prefix = "${var.name}-s3-"
  description = "The interface endpoint of S3, for the models"
  vpc_id      = module.vpc.vpc_id
  tags        = { Name = "${var.name}-s3" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "s3_endpoint" {
  security_group_id            = aws_security_group.s3_endpoint.id
  description                  = "HTTPS from pods of the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = module.eks.node_security_group_id
}
