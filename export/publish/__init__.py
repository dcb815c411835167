"""Manages a model repository on S3 or in a folder: publish, list, pin, prune.

The server that mirrors it is known only by its responses over HTTP.
"""
