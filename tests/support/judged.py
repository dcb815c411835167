"""Worst cases of a validation, as functions that a confined process can call by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from registry.errors import Incomplete, VersionRejected


def echo(value: Any) -> Any:
    return {"got": value, "process": os.getpid()}


def starter() -> int:
    """The parent of this process's guard, from which all confined processes are forked."""
    guard = Path(f"/proc/{os.getppid()}/stat").read_text()
    return int(guard.rpartition(")")[2].split()[1])


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(600)


def grow() -> None:
    blocks = []
    while True:
        blocks.append(bytes(2**20))


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def vanish() -> None:
    os._exit(3)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def recurse() -> Any:
    return recurse()


def reject() -> None:
    raise VersionRejected("no")


def wait() -> None:
    raise Incomplete("not yet", patient=True)


def fill_disk() -> None:
    raise OSError(28, "No space left on device")
