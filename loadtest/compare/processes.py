"""A candidate as a group of processes: started for its turn, measured, stopped whatever happens."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
_START_S = 180.0
_STOP_S = 45.0
_KILLED_S = 5.0


class CandidateError(Exception):
    """A candidate cannot be measured; the message says why."""


class Group:
    """A process and all processes that it started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._leader = psutil.Process(process.pid)
        self._process = process
        self._log = log

    def _members(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._leader, *self._leader.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """User and system time of all processes."""
        total = 0.0
        for member in self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                total += times.user + times.system
        return total

    def pss_mib(self) -> float:
        """Resident memory; a page that several processes share counts once."""
        total = 0
        for member in self._members():
            with contextlib.suppress(psutil.Error):
                total += member.memory_full_info().pss
        return total / 2**20

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once it is ready.

        Raises:
            CandidateError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + _START_S
        while not ready():
            if self._process.poll() is not None:
                raise CandidateError(f"it ended with status {self._process.returncode}\n{tail(self._log)}")
            if time.monotonic() > deadline:
                raise CandidateError(f"it was not ready within {_START_S:.0f} s\n{tail(self._log)}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with SIGTERM, then kill what is left."""
        members = self._members()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(members, timeout=_KILLED_S)  # their end is no part of the next turn


@contextmanager
def start(command: Sequence[str], log: Path, *, variables: Mapping[str, str] | None = None) -> Iterator[Group]:
    """Run a program in a session of its own until the block ends."""
    # Nothing is left behind where this program is killed with -9. Only Linux has setpriv.
    setpriv = [path, "--pdeathsig", "TERM", "--"] if (path := shutil.which("setpriv")) else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*setpriv, *command],
            cwd=ROOT,
            env=os.environ | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this program
        )
    group = Group(process, log)
    try:
        yield group
    finally:
        group.stop()


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def responds(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
