"""What the parts share about where they run: CPU limit, addresses to listen on, the API key of a client."""
