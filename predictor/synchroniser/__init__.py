"""Keeps a model repository on S3, or in a folder, and what Triton serves the same: stage, try, rename in, load."""
