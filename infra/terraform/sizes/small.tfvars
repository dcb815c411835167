# Two pods, up to six: some 100 requests/s of digit-finder by docs/growth.md, with a zone that fails. One NAT gateway, by
# which AWS' services are reached too.
nat                    = "single"
interface_endpoints    = []
triton                 = "cpu"
cpu_nodes              = { instance_types = ["c7i.2xlarge", "c7a.2xlarge", "c6i.2xlarge", "c6a.2xlarge"], min = 2, max = 4, disk_gib = 60 }
pods                   = { min = 2, max = 6 }
prometheus_gib         = 20
requests_per_5_minutes = 15000
