"""The record of a request: log line, metrics, trace, time of each stage."""
