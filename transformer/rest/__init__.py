"""The REST skin over the data plane."""
