"""The Triton tier: the embedded `tritonserver` with its backends, and the synchroniser of its models."""
