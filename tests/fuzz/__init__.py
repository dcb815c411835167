"""Invalid inputs, and a run that sends many of them to a server (`make fuzz`)."""
