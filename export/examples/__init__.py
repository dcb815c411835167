"""The models that come with the project: iris, digits, digit-finder."""
