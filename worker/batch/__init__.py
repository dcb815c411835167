"""Predictions for a whole folder, a whole prefix of a bucket, or a table."""
