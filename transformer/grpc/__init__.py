"""The gRPC side: KServe's v2 service, health and reflection over the data plane."""
