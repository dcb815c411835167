output "overlay" {
  description = "kustomization.yaml of this installation without its images, for manifests/overlays/aws/terraform"
  value       = local.overlay
}

output "images" {
  description = "kustomization.yaml with the images over it, for manifests/overlays/aws: once, then the pipeline's or yours"
  value       = local.images_overlay
}

output "publish_overlay" {
  description = "kustomization.yaml of the Job that publishes, for manifests/overlays/aws/publish"
  value       = local.publish_overlay
}

output "kubeconfig_command" {
  description = "Points kubectl to the cluster"
  value       = "aws eks update-kubeconfig --name ${module.eks.cluster_name} --region ${var.region}"
}

output "registry" {
  description = "For `make images REGISTRY=... PUSH=1`"
  value       = "${local.registry}/nereid"
}

output "registry_login_command" {
  description = "Logs docker in to the registry"
  value       = "aws ecr get-login-password --region ${var.region} | docker login --username AWS --password-stdin ${local.registry}"
}

output "triton_copy_command" {
  description = "Copies NVIDIA's Triton to the registry, with skopeo; nothing with triton = cpu"
  value       = var.triton == "cpu" ? "true" : "skopeo copy --override-os linux --override-arch amd64 docker://nvcr.io/nvidia/tritonserver${local.triton_source} docker://${local.registry}/${local.repositories["tritonserver"]}:${local.triton_tag}"
}

output "repository" {
  description = "Of the models, for `make publish REPOSITORY=...`"
  value       = local.repository
}

output "url" {
  description = "Of the service"
  value       = var.knative ? "https://nereid-predictor.${local.namespace}.${var.host}" : "https://${var.host}"
}

output "roles" {
  description = "ARNs: reader (the synchroniser), publisher (the Job), and the pipeline's images and models"
  value = {
    reader          = module.reader_role.iam_role_arn
    publisher       = module.publisher_role.iam_role_arn
    pipeline_images = one(module.pipeline_images_role[*].arn)
    pipeline_models = one(module.pipeline_models_role[*].arn)
  }
}

output "web_acl_arn" {
  description = "Of the WAF, for another load balancer of the region"
  value       = aws_wafv2_web_acl.edge.arn
}

output "alarms_topic_arn" {
  description = "Of the SNS topic of alarms"
  value       = aws_sns_topic.alarms.arn
}
