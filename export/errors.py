"""What a user can have done wrong, in one class."""


class ExportError(Exception):
    """Nothing was written; the message says what, got, expected and what to do next."""
