"""Why a version does not serve yet, beside what its files say.

Passing               see registry.errors
  StorageError        see registry.errors
  TritonError         Triton is away, or has no room
"""

from registry.errors import Passing, StorageError

__all__ = ["Passing", "StorageError", "TritonError"]


class TritonError(Passing):
    """Triton is away, does not answer in time, or has no room."""
