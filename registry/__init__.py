"""What a model repository is, and what is valid in it: shared by the synchroniser and by export."""
