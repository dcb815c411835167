"""Triton backends in Python. Each folder is loaded by Triton under its name."""
