# Managed node groups: system for charts, cpu and gpu for pods of ours. With Karpenter only system is one of them, and
# the others are its node pools (charts/node-pools). The overlay selects cpu or gpu by the label, and charts select system.

locals {
  system_selector = { "nereid/nodes" = "system" }

  # AL2023 has the drivers of NVIDIA in an image of its own.
  ami_types = { cpu = "AL2023_x86_64_STANDARD", gpu = "AL2023_x86_64_NVIDIA" }

  with_karpenter = var.autoscaler == "karpenter"

  node_groups = merge(
    {
      system = merge(local.node_defaults, {
        ami_type              = local.ami_types.cpu
        instance_types        = var.system_nodes.instance_types
        min_size              = var.system_nodes.count
        max_size              = var.system_nodes.count * 2
        desired_size          = var.system_nodes.count
        labels                = local.system_selector
        block_device_mappings = local.disks["system"]
      })
    },
    local.with_karpenter ? {} : {
      cpu = merge(local.node_defaults, {
        ami_type              = local.ami_types.cpu
        instance_types        = var.cpu_nodes.instance_types
        min_size              = var.cpu_nodes.min
        max_size              = var.cpu_nodes.max
        desired_size          = var.cpu_nodes.min
        labels                = { "nereid/nodes" = "cpu" }
        block_device_mappings = local.disks["cpu"]
      })
    },
    local.with_karpenter || var.cpu_nodes.spot_max == 0 ? {} : {
      spot = merge(local.node_defaults, {
        ami_type              = local.ami_types.cpu
        capacity_type         = "SPOT"
        instance_types        = var.cpu_nodes.instance_types
        min_size              = 0
        max_size              = var.cpu_nodes.spot_max
        desired_size          = 0
        labels                = { "nereid/nodes" = "cpu" }
        block_device_mappings = local.disks["cpu"]
      })
    },
    local.with_karpenter || var.gpu_nodes == null ? {} : {
      gpu = merge(local.node_defaults, {
        ami_type       = local.ami_types.gpu
        capacity_type  = try(var.gpu_nodes.spot, false) ? "SPOT" : "ON_DEMAND"
        instance_types = try(var.gpu_nodes.instance_types, [])
        min_size       = try(var.gpu_nodes.min, 0)
        max_size       = try(var.gpu_nodes.max, 1)
        desired_size   = try(var.gpu_nodes.min, 0)
        # What the GPU operator would set, and manifests/components/gpu selects.
        labels                = { "nereid/nodes" = "gpu", "nvidia.com/gpu.present" = "true" }
        taints                = { gpu = { key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" } }
        block_device_mappings = local.disks["gpu"]
      })
    },
  )

  node_defaults = {
    # Credentials of the node are for the node: one hop does not reach into a pod.
    metadata_options = {
      http_endpoint               = "enabled"
      http_tokens                 = "required"
      http_put_response_hop_limit = 1
    }
    # A node at a time, and a shell by Session Manager in place of SSH.
    update_config = { max_unavailable = 1 }
    iam_role_additional_policies = {
      session_manager = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
    }
    node_repair_config = { enabled = true }
  }

  disks = {
    for name, gib in {
      system = var.system_nodes.disk_gib
      cpu    = var.cpu_nodes.disk_gib
      gpu    = try(var.gpu_nodes.disk_gib, 150)
      } : name => {
      root = {
        device_name = "/dev/xvda"
        ebs = {
          volume_size           = gib
          volume_type           = "gp3"
          encrypted             = true
          delete_on_termination = true
        }
      }
    }
  }
}

module "cluster_autoscaler_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"
  count   = local.with_karpenter ? 0 : 1

  name                             = "${var.name}-autoscaler"
  attach_cluster_autoscaler_policy = true
  cluster_autoscaler_cluster_names = [module.eks.cluster_name]
  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = "kube-system"
      service_account = "cluster-autoscaler"
    }
  }
}

module "karpenter" {
  source  = "terraform-aws-modules/eks/aws//modules/karpenter"
  version = "21.19.0"
  count   = local.with_karpenter ? 1 : 0

  cluster_name                  = module.eks.cluster_name
  iam_role_name                 = "${var.name}-karpenter"
  iam_policy_name               = "${var.name}-karpenter"
  node_iam_role_name            = "${var.name}-karpenter-node"
  node_iam_role_use_name_prefix = false
  queue_name                    = "${var.name}-karpenter"
  node_iam_role_additional_policies = {
    session_manager = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
  }
}

# Engines that TensorRT built, for pods on several nodes: manifests/components/gpu/persistentvolumeclaim.yaml.

module "efs_csi_role" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "2.8.1"
  count   = var.gpu_nodes == null ? 0 : 1

  name                      = "${var.name}-efs-csi"
  attach_aws_efs_csi_policy = true
}

resource "aws_efs_file_system" "engines" {
  count = var.gpu_nodes == null ? 0 : 1

  encrypted       = true
  kms_key_id      = module.models_key.key_arn
  throughput_mode = "elastic"
  tags            = { Name = "${var.name}-engines" }

  # What no pod has read for a month was built for a GPU or a version that is gone.
  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }
}

resource "aws_efs_mount_target" "engines" {
  count = var.gpu_nodes == null ? 0 : 3

  file_system_id  = aws_efs_file_system.engines[0].id
  subnet_id       = module.vpc.private_subnets[count.index]
  security_groups = [aws_security_group.engines[0].id]
}

resource "aws_security_group" "engines" {
  count = var.gpu_nodes == null ? 0 : 1

  name_prefix = "${var.name}-engines-"
  description = "NFS of the engines volume"
  vpc_id      = module.vpc.vpc_id
  tags        = { Name = "${var.name}-engines" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "engines" {
  count = var.gpu_nodes == null ? 0 : 1

  security_group_id            = aws_security_group.engines[0].id
  description                  = "NFS from nodes"
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = module.eks.node_security_group_id
}
