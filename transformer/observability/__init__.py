"""What is recorded of a request: log line, metrics, trace, time of each stage."""
