"""Latency tests with Locust: `make loadtest`, `loadtest-ui`, `loadtest-cold`, `capacity`. See ../README.md."""
