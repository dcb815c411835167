"""The local stack: `make serve` and `make demo`, an S3 server for development, checks before anything starts."""
