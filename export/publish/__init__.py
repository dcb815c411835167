"""Manages a model repository on S3 or in a folder: publish, list, pin, prune.

Of the server that mirrors the repository, only its HTTP responses are used.
"""
