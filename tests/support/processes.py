"""Processes that end with their test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


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


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty where it has ended meanwhile, waited for or not."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
