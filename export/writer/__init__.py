"""Writes a version into a local model repository: whole or not at all."""
