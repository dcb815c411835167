"""The lock of a repository in a folder, with the standard library alone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(repository: Path) -> Iterator[None]:
    """Hold the lock of a repository, a folder, against every other command of export."""
    descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which releases the lock
