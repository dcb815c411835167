"""What a user can have done wrong, in one class."""


class ExportError(Exception):
    """The message says what, got, expected and what to do next. What exports has then written nothing."""
