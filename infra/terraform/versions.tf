# Every version of this folder but those of modules, which Terraform takes as literals: they are in the `module` blocks.

terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.66.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "3.1.1"
    }
    # Of the modules, which require less.
    cloudinit = {
      source  = "hashicorp/cloudinit"
      version = "2.3.7"
    }
    null = {
      source  = "hashicorp/null"
      version = "3.2.4"
    }
    time = {
      source  = "hashicorp/time"
      version = "0.14.2"
    }
    tls = {
      source  = "hashicorp/tls"
      version = "4.1.0"
    }
  }
}

locals {
  # One minor version at a time, with the add-ons of that version:
  #   aws eks describe-addon-versions --kubernetes-version 1.35 --query 'addons[].[addonName, addonVersions[0].addonVersion]'
  kubernetes_version = "1.35"

  addons = {
    vpc-cni                = "v1.21.1-eksbuild.5"
    kube-proxy             = "v1.35.2-eksbuild.4"
    coredns                = "v1.13.2-eksbuild.3"
    eks-pod-identity-agent = "v1.3.10-eksbuild.2"
    metrics-server         = "v0.8.1-eksbuild.4"
    aws-ebs-csi-driver     = "v1.57.1-eksbuild.1"
    aws-efs-csi-driver     = "v2.3.1-eksbuild.1"
  }

  charts = {
    aws-load-balancer-controller = {
      repository = "https://aws.github.io/eks-charts"
      version    = "1.17.1"
    }
    cert-manager = {
      repository = "https://charts.jetstack.io"
      version    = "v1.18.2"
    }
    cluster-autoscaler = {
      repository = "https://kubernetes.github.io/autoscaler"
      version    = "9.55.0"
    }
    external-dns = {
      repository = "https://kubernetes-sigs.github.io/external-dns"
      version    = "1.20.0"
    }
    fluent-bit = {
      repository = "https://fluent.github.io/helm-charts"
      version    = "0.58.1"
    }
    karpenter = {
      repository = "oci://public.ecr.aws/karpenter"
      version    = "1.12.1"
    }
    knative-operator = {
      repository = "https://knative.github.io/operator"
      version    = "v1.21.1"
    }
    kserve-crd = {
      repository = "oci://ghcr.io/kserve/charts"
      version    = "v0.20.0"
    }
    kserve-resources = {
      repository = "oci://ghcr.io/kserve/charts"
      version    = "v0.20.0"
    }
    kube-prometheus-stack = {
      repository = "https://prometheus-community.github.io/helm-charts"
      version    = "83.4.0"
    }
    nvidia-device-plugin = {
      repository = "https://nvidia.github.io/k8s-device-plugin"
      version    = "0.18.0"
    }
  }

  # What the operator installs; manifests/README.md was seen with it.
  knative_serving_version = "1.21.1"
}
