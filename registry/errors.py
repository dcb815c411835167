"""Why a version does not serve, or a repository cannot be read.

RepositoryError
  VersionRejected  the version will never serve: remembered until it changes
    Unsigned       no trusted key has signed it: remembered until its signature changes
  Incomplete       a file of the version is still missing
  TransientError   the next attempt may succeed: retried, with growing pauses
    StorageError   the repository cannot be read or written now
  Misconfigured    the address or a setting is invalid: a retry does not help
"""

from environment.log_lines import printable

_LONGEST = 600


class RepositoryError(Exception):
    """Root of the tree; the message says what, got and expected.

    The text may quote the content of the bucket: control characters are escaped, so that it cannot forge a line of the
    log or control a terminal.
    """

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class VersionRejected(RepositoryError):
    """A version that must not serve; the message says why."""


class Unsigned(VersionRejected):
    """A version without a signature that the policy accepts; the message says what is wrong with it."""


class Incomplete(RepositoryError):
    """A version that waits for a file; the message names it.

    Attributes:
        patient: wait without limit; otherwise a version that does not change for a while is rejected.
    """

    def __init__(self, message: str, *, patient: bool = False) -> None:
        super().__init__(message)
        self.patient = patient


class TransientError(RepositoryError):
    """A failure that may not happen again: disk, network, memory."""


class StorageError(TransientError):
    """The repository cannot be read or written now."""


class Misconfigured(RepositoryError):
    """An address, a variable or a profile is wrong; the message says which."""
