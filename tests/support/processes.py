"""Processes that end with their test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended(process: subprocess.Popen[bytes], *, patience_s: float) -> Iterator[None]:
    """Terminate the process at the end of the block; kill it and fail where it takes longer than `patience_s`."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        finally:
            process.kill()
