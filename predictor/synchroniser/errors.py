"""Failures of Triton, and which failures are transient."""

import errno

from registry.errors import TransientError, VersionRejected

# Failures of disks, networks, and of a machine without memory or descriptors. Any other errno is a defect of this
# program: a path that is missing, exists already, or is too long.
_TRANSIENT = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENODEV, errno.ENXIO,
    errno.ETIMEDOUT, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETDOWN,
    errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOBUFS, errno.ENOLCK, errno.EREMOTEIO,
}  # fmt: skip


class TritonError(TransientError):
    """Triton is unavailable, does not respond in time, or is out of memory."""


class TritonDied(TritonError):
    """Triton, or its process that ran the model, ended or did not respond; the model may be the cause."""


class ModelProcessDied(TritonDied):
    """Triton's process that ran the model ended or is unhealthy; Triton itself runs."""


class TritonTimeout(TritonError):
    """A load, or a request of a validation, exceeded its deadline: another attempt may block as long."""


class IncompleteConfig(VersionRejected):
    """The config lacks inputs or outputs, and Triton completes none.

    Attributes:
        fields: JSON of the `ModelConfig` that it lacks, and more text.
    """

    def __init__(self, message: str, fields: str) -> None:
        super().__init__(message)
        self.fields = fields


class LoadFailed(TransientError):
    """A version passed its validation, and does not load under the model's name."""


def is_transient(exc: Exception) -> bool:
    """Whether a retry may succeed; otherwise the failure is a defect of this program."""
    if isinstance(exc, OSError):
        return exc.errno in _TRANSIENT or isinstance(exc, TimeoutError | ConnectionError | BlockingIOError)
    return isinstance(exc, TransientError | MemoryError)


def describe(exc: Exception) -> str:
    """Return the text of a failure for `/status`, without paths of this machine."""
    if isinstance(exc, OSError):
        return (exc.strerror or str(exc)).lower()
    return str(exc) or type(exc).__name__
