# Charts, in the order in which they need each other. Their values are in values/, what only this folder knows is here.

locals {
  replicas = { replicaCount = 2, nodeSelector = local.system_selector }
}

# AWS: load balancers, names, nodes

module "load_balancer_controller_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"

  name                            = "${var.name}-load-balancers"
  attach_aws_lb_controller_policy = true
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = "kube-system"
      service_account = "aws-load-balancer-controller"
    }
  }
}

resource "helm_release" "load_balancer_controller" {
  name       = "aws-load-balancer-controller"
  repository = local.charts.aws-load-balancer-controller.repository
  chart      = "aws-load-balancer-controller"
  version    = local.charts.aws-load-balancer-controller.version
  namespace  = "kube-system"

  values = [
    file("${path.module}/values/aws-load-balancer-controller.yaml"),
    yamlencode(merge(local.replicas, {
      clusterName = module.eks.cluster_name
      region      = var.region
      vpcId       = module.vpc.vpc_id
      defaultTags = local.tags
    })),
  ]

  # Every other chart needs this one, so on destroy the network outlives them all: NAT, routes and endpoints, without which
  # nothing that they made in AWS would be deleted.
  depends_on = [module.eks, module.vpc, module.endpoints, module.load_balancer_controller_role]
}

module "external_dns_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"
  count   = var.zone_id == null ? 0 : 1

  name                          = "${var.name}-external-dns"
  attach_external_dns_policy    = true
  external_dns_hosted_zone_arns = ["arn:${data.aws_partition.current.partition}:route53:::hostedzone/${var.zone_id}"]
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = "kube-system"
      service_account = "external-dns"
    }
  }
}

resource "helm_release" "external_dns" {
  count = var.zone_id == null ? 0 : 1

  name       = "external-dns"
  repository = local.charts.external-dns.repository
  chart      = "external-dns"
  version    = local.charts.external-dns.version
  namespace  = "kube-system"

  values = [
    file("${path.module}/values/external-dns.yaml"),
    yamlencode({
      txtOwnerId   = var.name
      extraArgs    = ["--zone-id-filter=${var.zone_id}"]
      nodeSelector = local.system_selector
    }),
  ]

  depends_on = [module.eks, module.external_dns_role, helm_release.load_balancer_controller]
}

resource "helm_release" "cluster_autoscaler" {
  count = local.with_karpenter ? 0 : 1

  name       = "cluster-autoscaler"
  repository = local.charts.cluster-autoscaler.repository
  chart      = "cluster-autoscaler"
  version    = local.charts.cluster-autoscaler.version
  namespace  = "kube-system"

  values = [
    file("${path.module}/values/cluster-autoscaler.yaml"),
    yamlencode(merge(local.replicas, {
      awsRegion     = var.region
      autoDiscovery = { clusterName = module.eks.cluster_name }
    })),
  ]

  depends_on = [module.eks, module.cluster_autoscaler_role, helm_release.load_balancer_controller]
}

resource "helm_release" "karpenter" {
  count = local.with_karpenter ? 1 : 0

  name       = "karpenter"
  repository = local.charts.karpenter.repository
  chart      = "karpenter"
  version    = local.charts.karpenter.version
  namespace  = "kube-system"

  values = [
    yamlencode({
      nodeSelector = local.system_selector
      replicas     = 2
      settings = {
        clusterName       = module.eks.cluster_name
        clusterEndpoint   = module.eks.cluster_endpoint
        interruptionQueue = module.karpenter[0].queue_name
      }
    }),
  ]

  # Its role, queue and rights, which its values do not name all: they go after it.
  depends_on = [module.karpenter, helm_release.load_balancer_controller]
}

resource "helm_release" "node_pools" {
  count = local.with_karpenter ? 1 : 0

  name      = "node-pools"
  chart     = "${path.module}/charts/node-pools"
  namespace = "kube-system"

  values = [
    yamlencode({
      discovery = var.name
      role      = module.karpenter[0].node_iam_role_name
      tags      = local.tags
      cpu = {
        diskGib       = var.cpu_nodes.disk_gib
        capacityTypes = var.cpu_nodes.spot_max > 0 ? ["on-demand", "spot"] : ["on-demand"]
        # Of all pods and one more, with a third for what a node has besides.
        limit = ceil(local.pod.cpu * (var.pods.max + 1) * 4 / 3)
      }
      gpu = var.gpu_nodes == null ? null : {
        diskGib       = var.gpu_nodes.disk_gib
        capacityTypes = var.gpu_nodes.spot ? ["spot", "on-demand"] : ["on-demand"]
        instanceTypes = var.gpu_nodes.instance_types
        limit         = var.gpu_nodes.max
      }
    }),
  ]

  depends_on = [module.karpenter, helm_release.karpenter]
}

resource "helm_release" "nvidia_device_plugin" {
  count = var.gpu_nodes == null ? 0 : 1

  name       = "nvidia-device-plugin"
  repository = local.charts.nvidia-device-plugin.repository
  chart      = "nvidia-device-plugin"
  version    = local.charts.nvidia-device-plugin.version
  namespace  = "kube-system"

  values = [yamlencode({ nodeSelector = { "nvidia.com/gpu.present" = "true" } })]

  depends_on = [module.eks, helm_release.load_balancer_controller]
}

resource "helm_release" "storage" {
  name      = "storage"
  chart     = "${path.module}/charts/storage"
  namespace = "kube-system"

  values = [yamlencode({ fileSystem = one(aws_efs_file_system.engines[*].id) })]

  depends_on = [helm_release.load_balancer_controller, aws_efs_mount_target.engines]
}

# KServe

resource "helm_release" "cert_manager" {
  name             = "cert-manager"
  repository       = local.charts.cert-manager.repository
  chart            = "cert-manager"
  version          = local.charts.cert-manager.version
  namespace        = "cert-manager"
  create_namespace = true

  values = [
    file("${path.module}/values/cert-manager.yaml"),
    yamlencode(merge(local.replicas, {
      webhook    = local.replicas
      cainjector = local.replicas
    })),
  ]

  depends_on = [module.eks, helm_release.load_balancer_controller]
}

resource "helm_release" "knative_operator" {
  count = var.knative ? 1 : 0

  name             = "knative-operator"
  repository       = local.charts.knative-operator.repository
  chart            = "knative-operator"
  version          = local.charts.knative-operator.version
  namespace        = "knative-operator"
  create_namespace = true

  depends_on = [module.eks, helm_release.load_balancer_controller]
}

resource "helm_release" "knative_serving" {
  count = var.knative ? 1 : 0

  name             = "knative-serving"
  chart            = "${path.module}/charts/knative-serving"
  namespace        = "knative-serving"
  create_namespace = true

  values = [
    yamlencode({
      version     = local.knative_serving_version
      domain      = var.host
      host        = "*.${local.namespace}.${var.host}"
      annotations = local.ingress_annotations
    }),
  ]

  depends_on = [helm_release.knative_operator, helm_release.load_balancer_controller]
}

resource "helm_release" "kserve_crd" {
  name             = "kserve-crd"
  repository       = local.charts.kserve-crd.repository
  chart            = "kserve-crd"
  version          = local.charts.kserve-crd.version
  namespace        = "kserve"
  create_namespace = true

  depends_on = [helm_release.load_balancer_controller]
}

resource "helm_release" "kserve" {
  name       = "kserve"
  repository = local.charts.kserve-resources.repository
  chart      = "kserve-resources"
  version    = local.charts.kserve-resources.version
  namespace  = "kserve"

  values = [
    file("${path.module}/values/kserve.yaml"),
    yamlencode({
      kserve = {
        controller = {
          deploymentMode = var.knative ? "Knative" : "Standard"
          nodeSelector   = local.system_selector
        }
      }
    }),
  ]

  depends_on = [helm_release.kserve_crd, helm_release.cert_manager, helm_release.knative_serving]
}

# Metrics and logs

resource "helm_release" "kube_prometheus_stack" {
  name             = "kube-prometheus-stack"
  repository       = local.charts.kube-prometheus-stack.repository
  chart            = "kube-prometheus-stack"
  version          = local.charts.kube-prometheus-stack.version
  namespace        = local.metrics_namespace
  create_namespace = true
  timeout          = 900

  values = [
    templatefile("${path.module}/values/kube-prometheus-stack.yaml.tftpl", {
      gib      = var.prometheus_gib
      selector = jsonencode(local.system_selector)
    }),
  ]

  depends_on = [module.eks, helm_release.load_balancer_controller, helm_release.storage]
}

module "fluent_bit_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"
  count   = var.logs.to == "cloudwatch" ? 1 : 0

  name                 = "${var.name}-logging"
  attach_custom_policy = true
  policy_statements = [
    # manifests/examples/aws/write-logs.json: into this group, which it cannot make.
    {
      sid       = "Write"
      actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      resources = ["${aws_cloudwatch_log_group.pods[0].arn}:*"]
    },
  ]
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = local.logging_namespace
      service_account = local.logging_namespace
    }
  }
}

# The files of manifests/logging, as its page installs them.
resource "helm_release" "fluent_bit" {
  name             = local.logging_namespace
  repository       = local.charts.fluent-bit.repository
  chart            = "fluent-bit"
  version          = local.charts.fluent-bit.version
  namespace        = local.logging_namespace
  create_namespace = true

  values = [
    file("${path.module}/values/logging/values.yaml"),
    yamlencode({
      # In place of the ConfigMap nereid-logging-output.
      env = concat(
        [{ name = "POD_IP", valueFrom = { fieldRef = { fieldPath = "status.podIP" } } }],
        [for name, value in local.log_settings : { name = name, value = value }],
      )
      envFrom = [{ secretRef = { name = "nereid-logging-output", optional = true } }]
      config = {
        extraFiles = {
          "fluent-bit.yaml" = file("${path.module}/values/logging/fluent-bit.yaml")
          "output.yaml"     = file("${path.module}/values/logging/${var.logs.to}.yaml")
        }
      }
    }),
  ]

  depends_on = [module.eks, module.fluent_bit_role, helm_release.load_balancer_controller]
}

locals {
  log_settings = merge(
    { LOG_FILES = "/var/log/containers/*_${local.namespace}_*.log" },
    var.logs.to == "cloudwatch" ? {
      AWS_REGION = var.region
      LOG_GROUP  = aws_cloudwatch_log_group.pods[0].name
      } : {
      LOKI_HOST   = var.logs.loki_host
      LOKI_PORT   = tostring(var.logs.loki_port)
      LOKI_TLS    = var.logs.loki_tls ? "on" : "off"
      LOKI_TENANT = var.logs.loki_tenant
    },
  )
}
