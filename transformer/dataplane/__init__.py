"""What the server does, whatever the protocol: items in, results out."""
