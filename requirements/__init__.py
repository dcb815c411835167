"""Installed packages: locks with hashes, the installer of the locks, and the audit of the pinned versions."""
