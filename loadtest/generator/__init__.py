"""A light load generator: bytes in, statuses out, over HTTP and gRPC, in a closed or an open loop."""
