"""The protocols without their transport: v2 inference, JSON of responses."""
