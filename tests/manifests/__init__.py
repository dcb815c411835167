"""Verifies the manifests without a cluster: renders, schemas, rules, a scanner."""
