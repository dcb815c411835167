"""Why a version does not serve yet, beside what its files say.

Passing               see registry.errors
  StorageError        see registry.errors
  TritonError         Triton is away, or has no room
"""

import errno

from registry.errors import Passing, StorageError

__all__ = ["Passing", "StorageError", "TritonError"]

# What disks, networks and a machine without memory or descriptors say. Any other is a fault of ours: a path that is not
# there, or is there already, or too long.
_PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENODEV, errno.ENXIO,
    errno.ETIMEDOUT, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETDOWN,
    errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOBUFS, errno.ENOLCK, errno.EREMOTEIO,
}  # fmt: skip


class TritonError(Passing):
    """Triton is away, does not answer in time, or has no room."""


def passes(exc: Exception) -> bool:
    """Whether what failed may pass by itself; else it is a fault of ours, which no waiting heals."""
    if isinstance(exc, OSError):
        return exc.errno in _PASSING or isinstance(exc, TimeoutError | ConnectionError | BlockingIOError)
    return isinstance(exc, Passing | MemoryError)
