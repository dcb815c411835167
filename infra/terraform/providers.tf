provider "aws" {
  region = var.region

  # Nothing is made in another account by mistake.
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}

provider "helm" {
  kubernetes = {
    host                   = module.eks.cluster_endpoint
    cluster_ca_certificate = base64decode(module.eks.cluster_certificate_authority_data)

    # A token of 15 minutes for each call, from the AWS CLI: an apply may take longer than one token lasts.
    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--cluster-name", module.eks.cluster_name, "--region", var.region]
    }
  }
}
