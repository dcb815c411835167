"""What a user can have done wrong, in one class."""

from registry.errors import RepositoryError


class ExportError(Exception):
    """The message says what, got, expected and what to do next. What exports has then written nothing."""


# What a command ends with in one line: its own errors, and those of a repository.
FAILURES = (ExportError, RepositoryError)


def first_line(exc: Exception) -> str:
    """What somebody else's error says, in one line; its kind where it says nothing."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0][:300]
