# Two pods, up to 145 requests/s of digit-finder by docs/growth.md with its 8: a first installation. One NAT gateway, and
# what AWS offers is reached by it.
nat                 = "single"
interface_endpoints = []
triton              = "cpu"
cpu_nodes           = { instance_types = ["c7i.2xlarge", "c7a.2xlarge", "c6i.2xlarge", "c6a.2xlarge"], min = 1, max = 4, disk_gib = 60 }
pods                = { min = 2, max = 6 }
prometheus_gib      = 20
