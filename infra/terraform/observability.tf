# Log groups, their key, and alarms on what no pod sees. Alarms on pods are those of manifests/monitoring.

module "observability_key" {
  source  = "terraform-aws-modules/kms/aws"
  version = "4.2.0"

  description             = "Logs and alarms of ${var.name}"
  aliases                 = ["${var.name}/observability"]
  enable_key_rotation     = true
  deletion_window_in_days = var.delete_everything ? 7 : 30

  key_statements = [
    {
      sid       = "Logs"
      actions   = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
      resources = ["*"]
      principals = [
        { type = "Service", identifiers = ["logs.${var.region}.amazonaws.com"] }
      ]
      condition = [
        {
          test     = "ArnLike"
          variable = "kms:EncryptionContext:aws:logs:arn"
          values   = ["arn:${data.aws_partition.current.partition}:logs:${var.region}:${var.account_id}:*"]
        }
      ]
    },
    {
      sid       = "Alarms"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
      resources = ["*"]
      principals = [
        { type = "Service", identifiers = ["cloudwatch.amazonaws.com"] }
      ]
      condition = [
        { test = "StringEquals", variable = "aws:SourceAccount", values = [var.account_id] }
      ]
    },
  ]
}

resource "aws_cloudwatch_log_group" "pods" {
  #checkov:skip=CKV_AWS_338:a year of logs of pods is a decision of yours: logs.days
  count = var.logs.to == "cloudwatch" ? 1 : 0

  name              = "/nereid/${var.name}/pods"
  retention_in_days = var.logs.days
  kms_key_id        = module.observability_key.key_arn
}

# The name has to begin like this.
resource "aws_cloudwatch_log_group" "waf" {
  #checkov:skip=CKV_AWS_338:a year of what was blocked is a decision of yours: logs.days
  name              = "aws-waf-logs-${var.name}"
  retention_in_days = var.logs.days
  kms_key_id        = module.observability_key.key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = module.observability_key.key_id
}

resource "aws_sns_topic_subscription" "email" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

# The controller makes it, from the one Ingress, with these tags. Before the overlay, and in a teardown, there is none.
data "aws_lbs" "edge" {
  tags = {
    "elbv2.k8s.aws/cluster" = var.name
    "ingress.k8s.aws/stack" = var.knative ? "knative-serving/kourier" : "${local.namespace}/${local.ingress}"
  }
}

locals {
  # As its metrics name it: app/<name>/<id>.
  load_balancer = one([for each in data.aws_lbs.edge.arns : split(":loadbalancer/", each)[1]])

  web_acl_dimensions = { WebACL = aws_wafv2_web_acl.edge.name, Region = var.region, Rule = "ALL" }

  always_watched = {
    waf-blocks = {
      description = "The WAF blocks more than 1,000 requests in 5 minutes: an attack, or a rule that takes images for one. Look at the log group aws-waf-logs-${var.name}"
      namespace   = "AWS/WAFV2"
      metric      = "BlockedRequests"
      statistic   = "Sum"
      threshold   = 1000
      periods     = 1
      dimensions  = local.web_acl_dimensions
    }
  }

  nat_watched = {
    for index in range(var.nat == "single" ? 1 : 3) : "nat-ports-${index}" => {
      description = "A NAT gateway has no port left: something in the cluster opens connections without end"
      namespace   = "AWS/NATGateway"
      metric      = "ErrorPortAllocation"
      statistic   = "Sum"
      threshold   = 0
      periods     = 1
      dimensions  = { NatGatewayId = module.vpc.natgw_ids[index] }
    }
  }

  # What a load balancer responds by itself reaches no pod, and no metric of ours: docs/production-on-eks.md.
  load_balancer_watched = {
    alb-5xx = {
      description = "The load balancer itself responds with 5xx: no healthy pod, or one that was ended. docs/production-on-eks.md, When it is wrong"
      metric      = "HTTPCode_ELB_5XX_Count"
      statistic   = "Sum"
      threshold   = 10
      periods     = 1
    }
    alb-target-5xx = {
      description = "Pods respond with 5xx. docs/runbooks.md, NereidErrors"
      metric      = "HTTPCode_Target_5XX_Count"
      statistic   = "Sum"
      threshold   = 50
      periods     = 1
    }
    alb-connections = {
      description = "The load balancer cannot connect to pods: the network policy nereid-alb, or a security group"
      metric      = "TargetConnectionErrorCount"
      statistic   = "Sum"
      threshold   = 10
      periods     = 1
    }
  }

  watched = merge(
    local.always_watched,
    local.nat_watched,
    {
      for name, each in local.load_balancer_watched : name => merge(each, {
        namespace  = "AWS/ApplicationELB"
        dimensions = { LoadBalancer = local.load_balancer }
      }) if local.load_balancer != null
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.watched

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = each.value.periods
  # No requests is no fault.
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
}

# Healthy pods are counted for each target group: the least of them.
resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  count = local.load_balancer == null ? 0 : 1

  alarm_name          = "${var.name}-alb-unhealthy"
  alarm_description   = "A pod is not a healthy target for 10 minutes: the network policy nereid-alb, or a pod that is not ready"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "unhealthy"
    return_data = true
    period      = 300
    expression  = "SELECT MAX(UnHealthyHostCount) FROM SCHEMA(\"AWS/ApplicationELB\", LoadBalancer,TargetGroup) WHERE LoadBalancer = '${local.load_balancer}'"
  }
}
