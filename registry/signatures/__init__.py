"""Signatures of versions, in the format of OpenSSF's model-signing, and the keys that are trusted to make them."""
