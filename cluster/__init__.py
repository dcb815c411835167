"""A real Kubernetes on one machine, without Docker and without a registry: `make cluster`."""
