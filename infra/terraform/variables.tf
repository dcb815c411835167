# What is yours: terraform.tfvars.example. What is by size: sizes/.

variable "account_id" {
  type        = string
  description = "The account that everything is made in; another one is an error"

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id: got ${var.account_id}, expected 12 digits."
  }
}

variable "region" {
  type        = string
  description = "With three availability zones or more that EKS takes"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: got ${var.region}, expected a name such as eu-central-1."
  }
}

variable "name" {
  type        = string
  default     = "nereid"
  description = "Of the cluster, and the beginning of other names; one for each installation of an account"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name: got ${var.name}, expected 3 to 20 of a-z, 0-9 and -, a letter first."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "On everything, beside Project and ManagedBy: a cost centre, an owner"
}

# Network

variable "vpc_cidr" {
  type        = string
  default     = "10.64.0.0/16"
  description = "Of the VPC: a /16, of which nodes and pods take three /19. Apart from the networks that clients come from"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "vpc_cidr: got ${var.vpc_cidr}, expected a /16 such as 10.64.0.0/16."
  }
}

variable "nat" {
  type        = string
  default     = "per-zone"
  description = "Gateways to the Internet, by which nodes pull images of charts: per-zone, or single, cheaper and gone with its zone"

  validation {
    condition     = contains(["per-zone", "single"], var.nat)
    error_message = "nat: got ${var.nat}, expected per-zone or single."
  }
}

variable "interface_endpoints" {
  type        = set(string)
  default     = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "elasticloadbalancing", "logs", "sts"]
  description = "Services of AWS that are reached without NAT, each with an address in every zone. S3's are always there"

  validation {
    condition     = !contains(var.interface_endpoints, "s3")
    error_message = "interface_endpoints: got s3, expected services other than S3, whose endpoints are always there."
  }
}

variable "api_cidrs" {
  type        = list(string)
  default     = []
  description = "Which addresses reach the cluster's API from outside the VPC: your office, the runner of this. None: only the VPC does"

  validation {
    condition     = alltrue([for each in var.api_cidrs : can(cidrhost(each, 0)) && !endswith(each, "/0")])
    error_message = "api_cidrs: got ${join(", ", var.api_cidrs)}, expected networks such as 203.0.113.0/24, and not all addresses."
  }
}

variable "administrators" {
  type        = list(string)
  default     = []
  description = "ARNs of IAM roles that administer the cluster, the one that runs this among them. None: who makes the cluster"

  validation {
    condition     = alltrue([for each in var.administrators : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/", each))])
    error_message = "administrators: got ${join(", ", var.administrators)}, expected ARNs of IAM roles or users."
  }
}

variable "extended_support" {
  type        = bool
  default     = false
  description = "Whether Kubernetes stays as it is past its standard support, for six times the price of the control plane; else EKS upgrades it then"
}

# Nodes

variable "autoscaler" {
  type        = string
  default     = "cluster-autoscaler"
  description = "What adds nodes: cluster-autoscaler, to managed node groups, or karpenter, which chooses instances by itself"

  validation {
    condition     = contains(["cluster-autoscaler", "karpenter"], var.autoscaler)
    error_message = "autoscaler: got ${var.autoscaler}, expected cluster-autoscaler or karpenter."
  }
}

variable "system_nodes" {
  type = object({
    instance_types = optional(list(string), ["m7i.large", "m7a.large", "m6i.large", "m6a.large"])
    count          = optional(number, 3)
    disk_gib       = optional(number, 50)
  })
  default     = {}
  description = "For everything that is not a pod of ours: charts, DNS, Prometheus. One in each zone, or Prometheus' volume finds no node"

  validation {
    condition     = var.system_nodes.count >= 2
    error_message = "system_nodes.count: got ${var.system_nodes.count}, expected 2 or more: controllers have two replicas."
  }
}

variable "cpu_nodes" {
  type = object({
    instance_types = optional(list(string), ["c7i.4xlarge", "c7a.4xlarge", "c6i.4xlarge", "c6a.4xlarge"])
    min            = optional(number, 1)
    max            = optional(number, 4)
    spot_max       = optional(number, 0)
    disk_gib       = optional(number, 100)
  })
  default     = {}
  description = "For pods of ours. Types of the same size, of amd64: cluster-autoscaler counts with the first. spot_max: nodes of spot beside those of min to max"

  validation {
    condition     = var.cpu_nodes.min <= var.cpu_nodes.max && var.cpu_nodes.max >= 1
    error_message = "cpu_nodes: got min ${var.cpu_nodes.min} and max ${var.cpu_nodes.max}, expected 1 or more at most, and no more at least."
  }

  validation {
    condition     = length(distinct([for each in var.cpu_nodes.instance_types : split(".", each)[1]])) == 1
    error_message = "cpu_nodes.instance_types: got ${join(", ", var.cpu_nodes.instance_types)}, expected types of one size."
  }

  validation {
    condition     = var.cpu_nodes.disk_gib >= 60
    error_message = "cpu_nodes.disk_gib: got ${var.cpu_nodes.disk_gib}, expected 60 or more: docs/sizing.md has what a node stores."
  }
}

variable "gpu_nodes" {
  type = object({
    instance_types = optional(list(string), ["g6.2xlarge", "g5.2xlarge"])
    min            = optional(number, 0)
    max            = optional(number, 2)
    spot           = optional(bool, false)
    disk_gib       = optional(number, 150)
  })
  default     = null
  description = "With one GPU each, tainted nvidia.com/gpu; the overlay runs on them then. None without it"

  validation {
    condition     = var.gpu_nodes == null ? true : var.gpu_nodes.max >= 1 && var.gpu_nodes.min <= var.gpu_nodes.max
    error_message = "gpu_nodes: expected max of 1 or more, and min of no more."
  }
}

variable "pods" {
  type = object({
    min = optional(number, 2)
    max = optional(number, 8)
  })
  default     = {}
  description = "Replicas of the pod that serves; the namespace's quota follows max"

  validation {
    condition     = var.pods.min >= 2 && var.pods.max >= var.pods.min
    error_message = "pods: got min ${var.pods.min} and max ${var.pods.max}, expected 2 or more, and max of no less."
  }
}

# Models and images

variable "bucket" {
  type        = string
  default     = null
  description = "Of the models; without it <name>-models-<account>-<region>"
}

variable "noncurrent_days" {
  type        = number
  default     = 90
  description = "How long S3 keeps what was deleted or overwritten in the bucket of the models"

  validation {
    condition     = var.noncurrent_days >= 7
    error_message = "noncurrent_days: got ${var.noncurrent_days}, expected 7 or more: a prune is noticed later than a day."
  }
}

variable "triton" {
  type        = string
  default     = "nvidia"
  description = "nvidia: NVIDIA's image, copied to ECR. cpu: nereid/cpu-triton, a sixteenth of its size, for CPUs"

  validation {
    condition     = contains(["nvidia", "cpu"], var.triton)
    error_message = "triton: got ${var.triton}, expected nvidia or cpu."
  }

  validation {
    condition     = !(var.triton == "cpu" && var.gpu_nodes != null)
    error_message = "triton: got cpu with gpu_nodes, expected nvidia: nereid/cpu-triton knows no GPU."
  }
}

variable "triton_digest" {
  type        = string
  default     = null
  description = "Of NVIDIA's image, which is copied by it then, and not by its tag: what `skopeo inspect --format '{{.Digest}}'` said when you looked at it"

  validation {
    condition     = var.triton_digest == null ? true : can(regex("^sha256:[0-9a-f]{64}$", var.triton_digest))
    error_message = "triton_digest: expected sha256: and 64 digits of 0-9 and a-f."
  }
}

variable "create_registry" {
  type        = bool
  default     = true
  description = "Whether the repositories of images are made: once for an account and region, for their names are fixed. false: those of another installation are used"
}

variable "image_tag" {
  type        = string
  default     = null
  description = "Of images that are in ECR: the overlays then name their digests. Without it, for a first apply, they name tags"
}

variable "pipeline" {
  type = object({
    issuer          = optional(string, "https://token.actions.githubusercontent.com")
    audience        = optional(string, "sts.amazonaws.com")
    images_subjects = list(string)
    models_subjects = list(string)
    create_provider = optional(bool, true)
  })
  default     = null
  description = "Who pushes images and who publishes models without a key, by OIDC of GitHub or GitLab: subjects name repository and branch (or environment)"

  validation {
    condition = var.pipeline == null ? true : alltrue([
      for each in concat(var.pipeline.images_subjects, var.pipeline.models_subjects) :
      can(regex("^(repo:([^/:*@]+/[^/:*@]+|[^/:*@]+@[0-9]+/[^/:*@]+@[0-9]+):(ref:refs/(heads|tags)/[^*]+|environment:[^*]+)|project_path:[^:*]+/[^:*]+:ref_type:(branch|tag):ref:[^*]+)$", each))
    ])
    error_message = "pipeline: expected subjects such as repo:acme/vision:ref:refs/heads/main, repo:acme@123456/vision@456789:environment:registry or project_path:acme/vision:ref_type:branch:ref:main, without *."
  }

  validation {
    condition     = var.pipeline == null ? true : startswith(var.pipeline.issuer, "https://")
    error_message = "pipeline.issuer: expected an https address."
  }
}

# Edge

variable "host" {
  type        = string
  description = "By which clients call: vision.example.com"

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.host))
    error_message = "host: got ${var.host}, expected a name such as vision.example.com."
  }
}

variable "zone_id" {
  type        = string
  default     = null
  description = "Of the public zone in Route 53 that has the host: its certificate and its record come by themselves then"
}

variable "certificate_arn" {
  type        = string
  default     = null
  description = "Of ACM in the region, where there is no zone_id"

  validation {
    condition     = (var.certificate_arn == null) != (var.zone_id == null)
    error_message = "certificate_arn, zone_id: expected one of the two."
  }
}

variable "internet_facing" {
  type        = bool
  default     = false
  description = "Whether the load balancer has public addresses"
}

variable "client_cidrs" {
  type        = list(string)
  description = "Which addresses reach the load balancer: networks of clients, or 0.0.0.0/0 with internet_facing"

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for each in var.client_cidrs : can(cidrhost(each, 0))])
    error_message = "client_cidrs: got ${join(", ", var.client_cidrs)}, expected networks such as 10.0.0.0/8."
  }
}

variable "requests_per_5_minutes" {
  type        = number
  default     = 6000
  description = "Of one address, which may be the NAT of many clients; more are blocked by the WAF until they are fewer"

  validation {
    condition     = var.requests_per_5_minutes >= 10
    error_message = "requests_per_5_minutes: got ${var.requests_per_5_minutes}, expected 10 or more."
  }
}

# Charts

variable "knative" {
  type        = bool
  default     = false
  description = "Whether KServe runs pods by Knative, from zero, behind Kourier; else in Standard mode. Decide before the first apply: the mode of an InferenceService cannot be changed"

  validation {
    condition     = !(var.knative && var.gpu_nodes != null)
    error_message = "knative: got true with gpu_nodes, expected one of the two: manifests/overlays has no such pod."
  }
}

variable "prometheus_gib" {
  type        = number
  default     = 50
  description = "The volume of Prometheus, which keeps 15 days"
}

variable "logs" {
  type = object({
    to          = optional(string, "cloudwatch")
    days        = optional(number, 30)
    loki_host   = optional(string)
    loki_port   = optional(number, 80)
    loki_tls    = optional(bool, false)
    loki_tenant = optional(string, "")
  })
  default     = {}
  description = "Where logs of pods go: cloudwatch, or loki at loki_host. days: of every log group, whatever writes it"

  validation {
    condition     = contains(["cloudwatch", "loki"], var.logs.to)
    error_message = "logs.to: got ${var.logs.to}, expected cloudwatch or loki."
  }

  validation {
    condition     = (var.logs.to == "loki") == (var.logs.loki_host != null)
    error_message = "logs.loki_host: expected a name such as loki-gateway.loki.svc.cluster.local with loki, and none with cloudwatch."
  }

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.logs.days)
    error_message = "logs.days: got ${var.logs.days}, expected one that CloudWatch has: 7, 14, 30, 60, 90, 180, 365, ..."
  }
}

# Alarms

variable "alarm_email" {
  type        = string
  default     = null
  description = "Who gets alarms, once the address is confirmed. Others subscribe to the topic"
}

# Overlay

variable "manifests" {
  type = object({
    root = optional(string, "../../..")
    ref  = optional(string, "")
  })
  default     = {}
  description = "Where the overlay finds manifests/: from manifests/overlays/aws/terraform, or a repository: root https://git.example.com/nereid//manifests, ref ?ref=v0.1.0"
}

variable "delete_everything" {
  type        = bool
  default     = false
  description = "For a teardown: apply with it, then destroy. Buckets and repositories are deleted with what is in them"
}
