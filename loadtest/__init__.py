"""Latency and throughput of a running stack, measured by a stranger who knows only HTTP and gRPC."""
