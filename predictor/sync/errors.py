"""Why a version does not serve.

SyncError
  Refused        it never will: remembered until it changes
  Incomplete     something of it is still to come
  Passing        it may the next time: tried again, with growing pauses
    StorageError   the repository cannot be read
    TritonError    Triton is away, or has no room
"""

_LONGEST = 600


class SyncError(Exception):
    """Root of the tree; the message says what, got and expected.

    It may quote what somebody wrote into the bucket: nothing of it can end a line of the log, or steer a terminal.
    """

    def __str__(self) -> str:
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class Refused(SyncError):
    """A version that must not serve; the message says why."""


class Incomplete(SyncError):
    """A version that waits for something; the message says what for.

    Attributes:
        patient: it will come, however long that takes; else a version that does not change for a while is refused.
    """

    def __init__(self, message: str, *, patient: bool = False) -> None:
        super().__init__(message)
        self.patient = patient


class Passing(SyncError):
    """What failed for a reason that may pass: disk, network, memory."""


class StorageError(Passing):
    """The repository cannot be read."""


class TritonError(Passing):
    """Triton is away, does not answer in time, or has no room."""
