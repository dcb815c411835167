"""Which failures a retry may cure, and how long the pauses before it are."""

import errno
import os

import pytest

from predictor.synchroniser.errors import TritonTimeout, describe, is_transient
from predictor.synchroniser.retries import pause_after
from registry.errors import StorageError, VersionRejected


@pytest.mark.parametrize(
    "exc",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO, errno.EMFILE)),
        TimeoutError(),
        ConnectionResetError(),
        MemoryError(),
        StorageError("s3://models: away"),
        TritonTimeout("not loaded"),
    ],
)
def test_failure_of_machine_network_or_triton_is_transient(exc: Exception) -> None:
    assert is_transient(exc)


@pytest.mark.parametrize(
    "exc",
    [FileNotFoundError(2, "No such file"), OSError(36, "File name too long"), KeyError("x"), VersionRejected("no")],
)
def test_defect_or_rejection_is_not_transient(exc: Exception) -> None:
    assert not is_transient(exc)


def test_description_has_no_path_of_this_machine() -> None:
    assert describe(OSError(28, "No space left on device", "/srv/secret")) == "no space left on device"
    assert describe(MemoryError()) == "MemoryError"


def test_pauses_grow_to_a_minute() -> None:
    assert [pause_after(failures, poll_s=10) for failures in (1, 2, 3, 4, 1000)] == [10, 20, 40, 60, 60]
    assert pause_after(1, poll_s=0.1) == 1
