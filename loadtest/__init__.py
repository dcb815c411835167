"""Latency and throughput of a running stack, measured from outside: over HTTP and gRPC."""
