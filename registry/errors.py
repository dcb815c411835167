"""Why a version is not taken, or a repository not read.

RepositoryError
  Refused        it never will be: remembered until it changes
  Incomplete     something of it is still to come
  Passing        it may the next time: tried again, with growing pauses
    StorageError the repository cannot be read or written now
  Misconfigured  the repository cannot be reached as it is set up: no second try helps
"""

_LONGEST = 600


class RepositoryError(Exception):
    """Root of the tree; the message says what, got and expected.

    It may quote what somebody wrote into the bucket: nothing of it can end a line of the log, or steer a terminal.
    """

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class Refused(RepositoryError):
    """A version that must not serve; the message says why."""


class Incomplete(RepositoryError):
    """A version that waits for something; the message says what for.

    Attributes:
        patient: it will come, however long that takes; else a version that does not change for a while is refused.
    """

    def __init__(self, message: str, *, patient: bool = False) -> None:
        super().__init__(message)
        self.patient = patient


class Passing(RepositoryError):
    """What failed for a reason that may pass: disk, network, memory."""


class StorageError(Passing):
    """The repository cannot be read or written now."""


class Misconfigured(RepositoryError):
    """An address, a variable or a profile is wrong; the message says which."""


def printable(text: str) -> str:
    """The text with escapes in place of what ends a line, moves a cursor, reverses writing or is no UTF-8."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
