"""Synchronises Triton with a model repository on S3 or in a folder: lists, stages, validates, and loads versions."""
