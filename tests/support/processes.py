"""Processes of a test that end with it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended(process: subprocess.Popen[bytes], *, patience_s: float) -> Iterator[None]:
    """Terminate the process at the end of the block; kill it and fail where it takes longer than the patience."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        finally:
            process.kill()
