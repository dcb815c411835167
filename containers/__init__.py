"""The container images: one Dockerfile with a target for each, and what builds and pushes them."""
