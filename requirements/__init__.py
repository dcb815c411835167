"""What is installed: locks with hashes, their installer, the audit of what they pin."""
