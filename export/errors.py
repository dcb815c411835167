"""Errors that a user can correct, in one class."""

from registry.errors import RepositoryError


class ExportError(Exception):
    """The message says what, got, expected and what to do next. The command has written nothing then."""


# Errors that end a command with one line: its own, and those of a repository.
FAILURES = (ExportError, RepositoryError)


def first_line(exc: Exception) -> str:
    """The message of another package's error, in one line; its class where it has none."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0][:300]
