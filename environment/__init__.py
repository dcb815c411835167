"""Facts about the environment that the parts share: CPU limit, addresses to listen on, the API key of a client."""

__version__ = "0.1.0"  # of all parts
