"""What a model repository is and what may be in it: one judgement for what serves, publishes and fetches."""
