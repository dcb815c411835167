# Up to 64 pods: 1,000 requests/s of digit-finder by docs/growth.md take 56. What is above the least is on spot first.
triton                 = "cpu"
system_nodes           = { instance_types = ["m7i.xlarge", "m7a.xlarge", "m6i.xlarge", "m6a.xlarge"] }
cpu_nodes              = { min = 5, max = 8, spot_max = 6 }
pods                   = { min = 24, max = 64 }
prometheus_gib         = 200
requests_per_5_minutes = 200000
