# Up to 16 pods: some 300 requests/s of digit-finder by docs/growth.md, with a zone that fails.
triton                 = "cpu"
cpu_nodes              = { min = 2, max = 5 }
pods                   = { min = 6, max = 16 }
prometheus_gib         = 50
requests_per_5_minutes = 60000
