"""Checks of versions from a repository that others write to, in processes with limits."""
