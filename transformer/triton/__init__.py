"""The wire to Triton: which models serve, what each is, and calls of its v2 gRPC."""
