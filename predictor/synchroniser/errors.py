"""Failures of Triton, and which failures may pass by themselves."""

import errno

from registry.errors import TransientError

# Errors of disks, networks and a machine without memory or descriptors. Any other is a fault of ours: a path that is
# missing, exists already, or is too long.
_PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENODEV, errno.ENXIO,
    errno.ETIMEDOUT, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETDOWN,
    errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOBUFS, errno.ENOLCK, errno.EREMOTEIO,
}  # fmt: skip


class TritonError(TransientError):
    """Triton is away, does not answer in time, or has no room."""


def is_transient(exc: Exception) -> bool:
    """Whether a failure may pass by itself; else it is a fault of ours, and waiting does not help."""
    if isinstance(exc, OSError):
        return exc.errno in _PASSING or isinstance(exc, TimeoutError | ConnectionError | BlockingIOError)
    return isinstance(exc, TransientError | MemoryError)
