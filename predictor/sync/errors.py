"""Why a version does not serve yet, beside what its files say.

RepositoryError
  Refused, Incomplete   see registry.errors
  Passing               it may the next time: tried again, with growing pauses
    StorageError        the repository cannot be read
    TritonError         Triton is away, or has no room
"""

from registry.errors import RepositoryError


class Passing(RepositoryError):
    """What failed for a reason that may pass: disk, network, memory."""


class StorageError(Passing):
    """The repository cannot be read."""


class TritonError(Passing):
    """Triton is away, does not answer in time, or has no room."""
