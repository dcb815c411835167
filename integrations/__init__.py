"""Clients for tools that people already use: each sends images to a running Nereid."""
