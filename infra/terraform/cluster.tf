module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "21.19.0"

  name               = var.name
  kubernetes_version = local.kubernetes_version

  vpc_id     = module.vpc.vpc_id
  subnet_ids = module.vpc.private_subnets

  endpoint_private_access      = true
  endpoint_public_access       = length(var.api_cidrs) > 0
  endpoint_public_access_cidrs = length(var.api_cidrs) > 0 ? var.api_cidrs : null

  authentication_mode                      = "API"
  enable_cluster_creator_admin_permissions = length(var.administrators) == 0
  access_entries                           = local.access_entries

  deletion_protection = !var.delete_everything
  upgrade_policy      = { support_type = var.extended_support ? "EXTENDED" : "STANDARD" }
  # Amazon shifts traffic away from a zone that fails.
  zonal_shift_config = { enabled = true }

  # Secrets of Kubernetes are encrypted with a key that the module makes.
  kms_key_administrators = var.administrators

  enabled_log_types                      = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  cloudwatch_log_group_retention_in_days = var.logs.days
  cloudwatch_log_group_kms_key_id        = module.observability_key.key_arn

  # Pods have roles by Pod Identity.
  enable_irsa = false

  addons                  = local.cluster_addons
  eks_managed_node_groups = local.node_groups

  node_security_group_tags = { "karpenter.sh/discovery" = var.name }
  # kube-prometheus-stack's and cert-manager's webhooks listen where the kubelet does; the module lets that in.
}

locals {
  access_entries = {
    for each in var.administrators : each => {
      principal_arn = each
      policy_associations = {
        administrator = {
          policy_arn   = "arn:${data.aws_partition.current.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
          access_scope = { type = "cluster" }
        }
      }
    }
  }

  # Their values, where they have some.
  addon_values = {
    # Without it Amazon's CNI ignores network policies.
    vpc-cni = { enableNetworkPolicy = "true" }
    # Two copies in different zones; more with more nodes.
    coredns = {
      autoScaling = { enabled = true, minReplicas = 2, maxReplicas = 10 }
    }
    metrics-server = { replicas = 2 }
  }

  # Before the first node: pods without them do not start.
  addons_before_nodes = ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"]

  addon_roles = merge(
    { aws-ebs-csi-driver = [{ role_arn = module.ebs_csi_role.iam_role_arn, service_account = "ebs-csi-controller-sa" }] },
    { for each in module.efs_csi_role : "aws-efs-csi-driver" => [{ role_arn = each.iam_role_arn, service_account = "efs-csi-controller-sa" }] },
  )

  cluster_addons = {
    for name, version in local.addons : name => {
      addon_version               = version
      most_recent                 = false
      before_compute              = contains(local.addons_before_nodes, name)
      configuration_values        = try(jsonencode(local.addon_values[name]), null)
      pod_identity_association    = try(local.addon_roles[name], null)
      resolve_conflicts_on_create = "OVERWRITE"
    } if name != "aws-efs-csi-driver" || var.gpu_nodes != null
  }
}

module "ebs_csi_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"

  name                      = "${var.name}-ebs-csi"
  attach_aws_ebs_csi_policy = true
}
