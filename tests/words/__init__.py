"""The glossary of CONTRIBUTING.md against the tree."""
