"""A model repository on S3, or in a folder that others read: publish, look, pin, prune.

The server that mirrors it is known by what it answers over HTTP alone.
"""
