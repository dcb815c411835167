"""The embedded `tritonserver`: where its wheel is installed, what it needs to start, and how it is started."""
