# What stands before the pods: certificate, security group and web ACL of the load balancer. The controller makes the load
# balancer itself, from the Ingress that the overlay has.

locals {
  certificate_arn = var.zone_id == null ? var.certificate_arn : aws_acm_certificate_validation.host[0].certificate_arn

  # Knative has a host for each InferenceService: nereid-predictor.nereid.<host>.
  certificate_names = concat([var.host], var.knative ? ["*.${local.namespace}.${var.host}"] : [])

  # Beside those of manifests/components/alb.
  ingress_annotations = {
    "alb.ingress.kubernetes.io/load-balancer-name" = var.name
    "alb.ingress.kubernetes.io/scheme"             = var.internet_facing ? "internet-facing" : "internal"
    "alb.ingress.kubernetes.io/certificate-arn"    = local.certificate_arn
    "alb.ingress.kubernetes.io/subnets"            = join(",", var.internet_facing ? module.vpc.public_subnets : module.vpc.intra_subnets)
    "alb.ingress.kubernetes.io/security-groups"    = aws_security_group.load_balancer.id
    # The controller adds the rule by which nodes let the load balancer in.
    "alb.ingress.kubernetes.io/manage-backend-security-group-rules" = "true"
    "alb.ingress.kubernetes.io/wafv2-acl-arn"                       = aws_wafv2_web_acl.edge.arn
    "alb.ingress.kubernetes.io/load-balancer-attributes" = join(",", [
      "idle_timeout.timeout_seconds=60",
      "routing.http.drop_invalid_header_fields.enabled=true",
      "access_logs.s3.enabled=true",
      "access_logs.s3.bucket=${module.access_logs.s3_bucket_id}",
      "access_logs.s3.prefix=alb",
      "deletion_protection.enabled=${!var.delete_everything}",
    ])
  }
}

resource "aws_acm_certificate" "host" {
  count = var.zone_id == null ? 0 : 1

  domain_name               = var.host
  subject_alternative_names = slice(local.certificate_names, 1, length(local.certificate_names))
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  count = var.zone_id == null ? 0 : length(local.certificate_names)

  zone_id         = var.zone_id
  name            = tolist(aws_acm_certificate.host[0].domain_validation_options)[count.index].resource_record_name
  type            = tolist(aws_acm_certificate.host[0].domain_validation_options)[count.index].resource_record_type
  records         = [tolist(aws_acm_certificate.host[0].domain_validation_options)[count.index].resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "host" {
  count = var.zone_id == null ? 0 : 1

  certificate_arn         = aws_acm_certificate.host[0].arn
  validation_record_fqdns = aws_route53_record.validation[*].fqdn
}

resource "aws_security_group" "load_balancer" {
  #checkov:skip=CKV2_AWS_5:the controller attaches it, by an annotation of the Ingress
  name_prefix = "${var.name}-alb-"
  description = "Load balancer of ${var.host}"
  vpc_id      = module.vpc.vpc_id
  tags        = { Name = "${var.name}-alb" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.client_cidrs)

  security_group_id = aws_security_group.load_balancer.id
  description       = "HTTPS and gRPC from clients"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

resource "aws_vpc_security_group_egress_rule" "pods" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "REST and gRPC of pods, which have the security group of the nodes"
  ip_protocol                  = "tcp"
  from_port                    = local.rest_port
  to_port                      = local.grpc_port
  referenced_security_group_id = module.eks.node_security_group_id
}

# Of a body behind an ALB a WAF sees the first 8 KB, and that is fixed; of gRPC it sees none. AWS' common rules block any
# body above 8 KB, which every image is, and those and the ones of known bad inputs look for scripts, addresses and
# commands in it, which the metadata of a JPEG may have. So those rules count, and a rule of our own blocks what they found on routes that take no images. How large a body may
# be only its Content-Length says; without one, and of gRPC, the transformer's own limit holds.
resource "aws_wafv2_web_acl" "edge" {
  name        = var.name
  description = "Before the load balancer of ${var.host}"
  scope       = "REGIONAL"

  default_action {
    allow {}
  }

  rule {
    name     = "rate"
    priority = 10

    action {
      block {
        custom_response {
          response_code = 429
        }
      }
    }

    statement {
      rate_based_statement {
        limit                 = var.requests_per_5_minutes
        evaluation_window_sec = 300
        aggregate_key_type    = "IP"
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "rate"
      sampled_requests_enabled   = true
    }
  }

  dynamic "rule" {
    for_each = local.managed_rules

    content {
      name     = rule.value.name
      priority = rule.value.priority

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value.name

          dynamic "rule_action_override" {
            for_each = rule.value.counted

            content {
              name = rule_action_override.value

              action_to_use {
                count {}
              }
            }
          }
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = rule.value.name
        sampled_requests_enabled   = true
      }
    }
  }

  rule {
    name     = "body-of-other-routes"
    priority = 50

    action {
      block {}
    }

    statement {
      and_statement {
        statement {
          or_statement {
            dynamic "statement" {
              for_each = local.body_labels

              content {
                label_match_statement {
                  scope = "LABEL"
                  key   = statement.value
                }
              }
            }
          }
        }

        statement {
          not_statement {
            statement {
              or_statement {
                dynamic "statement" {
                  for_each = local.body_routes

                  content {
                    byte_match_statement {
                      search_string         = statement.value
                      positional_constraint = "STARTS_WITH"

                      field_to_match {
                        uri_path {}
                      }

                      text_transformation {
                        priority = 0
                        type     = "NONE"
                      }
                    }
                  }
                }
              }
            }
          }
        }
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "body-of-other-routes"
      sampled_requests_enabled   = false
    }
  }

  rule {
    name     = "body-too-large"
    priority = 60

    action {
      block {
        custom_response {
          response_code = 413
        }
      }
    }

    statement {
      regex_match_statement {
        regex_string = local.too_large

        field_to_match {
          single_header {
            name = "content-length"
          }
        }

        text_transformation {
          priority = 0
          type     = "NONE"
        }
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "body-too-large"
      sampled_requests_enabled   = false
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = true
  }
}

locals {
  # Rules of AWS that judge a body, of two groups, with the labels that they leave where they count.
  known_body_rules = {
    JavaDeserializationRCE_BODY = "JavaDeserializationRCE_Body"
    Log4JRCE_BODY               = "Log4JRCE_Body"
    ReactJSRCE_BODY             = "ReactJSRCE_Body"
  }
  body_rules = {
    CrossSiteScripting_BODY = "CrossSiteScripting_Body"
    EC2MetaDataSSRF_BODY    = "EC2MetaDataSSRF_Body"
    GenericLFI_BODY         = "GenericLFI_Body"
    GenericRFI_BODY         = "GenericRFI_Body"
    SizeRestrictions_BODY   = "SizeRestrictions_Body"
  }
  body_labels = concat(
    [for each in values(local.known_body_rules) : "awswaf:managed:aws:known-bad-inputs:${each}"],
    [for each in values(local.body_rules) : "awswaf:managed:aws:core-rule-set:${each}"],
  )

  managed_rules = [
    { name = "AWSManagedRulesAmazonIpReputationList", priority = 20, counted = [] },
    { name = "AWSManagedRulesKnownBadInputsRuleSet", priority = 30, counted = keys(local.known_body_rules) },
    { name = "AWSManagedRulesCommonRuleSet", priority = 40, counted = keys(local.body_rules) },
  ]

  # A Content-Length of 101,000,000 or more: the next million above TRANSFORMER_MAX_BODY_BYTES.
  too_large = "^(10[1-9]|1[1-9][0-9]|[2-9][0-9]{2})[0-9]{6}$|^[1-9][0-9]{9,}$"
}

resource "aws_wafv2_web_acl_logging_configuration" "edge" {
  resource_arn            = aws_wafv2_web_acl.edge.arn
  log_destination_configs = [aws_cloudwatch_log_group.waf.arn]

  redacted_fields {
    single_header {
      name = "authorization"
    }
  }

  redacted_fields {
    single_header {
      name = "x-api-key"
    }
  }

  # What passed is in the load balancer's access log.
  logging_filter {
    default_behavior = "DROP"

    filter {
      behavior    = "KEEP"
      requirement = "MEETS_ANY"

      condition {
        action_condition {
          action = "BLOCK"
        }
      }

      condition {
        action_condition {
          action = "COUNT"
        }
      }
    }
  }
}

# Access logs of the load balancer and of the models' bucket. Amazon delivers the former to SSE-S3 alone.
module "access_logs" {
  source  = "terraform-aws-modules/s3-bucket/aws"
  version = "5.15.4"

  bucket        = "${var.name}-logs-${var.account_id}-${var.region}"
  force_destroy = var.delete_everything

  control_object_ownership = true
  object_ownership         = "BucketOwnerEnforced"
  versioning               = { status = "Enabled" }

  server_side_encryption_configuration = {
    rule = {
      apply_server_side_encryption_by_default = { sse_algorithm = "AES256" }
    }
  }

  attach_deny_insecure_transport_policy      = true
  attach_require_latest_tls_policy           = true
  attach_elb_log_delivery_policy             = true
  attach_access_log_delivery_policy          = true
  access_log_delivery_policy_source_accounts = [var.account_id]
  access_log_delivery_policy_source_buckets  = [local.bucket_arn]

  lifecycle_rule = [
    {
      id                                     = "expire"
      enabled                                = true
      expiration                             = { days = max(var.logs.days, 30) }
      noncurrent_version_expiration          = { days = 7 }
      abort_incomplete_multipart_upload_days = 7
    },
  ]
}
