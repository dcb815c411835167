"""One batch at a time writes to an OUTPUT; one that was killed keeps no other from going on."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from worker.batch.objects import Objects
from worker.errors import Away, Failed, StartError, Stopping

LOCK = "lock.json"
RENEW_S, LEASE_S, LOOK_S = 10.0, 30.0, 1.0
SLOW_S = 3.0  # a read that took longer may have waited for S3

Hold = Callable[[Callable[[], Any]], Any]


def taken(who: str = "") -> StartError:
    """The error of the batch that came second."""
    return StartError(f"OUTPUT: another batch writes to it{who}; next: wait for its end, or another OUTPUT")


@contextmanager
def locked_folder(root: Path) -> Iterator[None]:
    """Hold a folder: the kernel's lock of a file, which ends with the process.

    Raises:
        StartError: another process has it.
    """
    with (root / f".{LOCK}").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise taken() from exc
        yield


class Lease:
    """A lock in a bucket: an object that is created where there is none, and written again every 10 s.

    Where there is one already, a batch watches it for 30 s: one that changes is in use; one that does not was left by a
    batch that was killed, and is taken over, by one of those that try. No clocks are compared. While S3 is away no one
    can write: the 30 s begin again after that.
    """

    def __init__(self, objects: Objects) -> None:
        """Nothing is sent yet.

        Args:
            objects: where it is, with requests that end soon: after an outage it is written before the 30 s are over.
        """
        self._objects = objects
        self._ended = threading.Event()
        self._is_lost = False

    @contextmanager
    def held(self, hold: Hold, *, stopped: threading.Event) -> Iterator[None]:
        """Hold the lease.

        Args:
            hold: calls a function until nothing that it needs is away.
            stopped: ends the watching; set where the lease is lost.

        Raises:
            StartError: another batch has it, or has taken it over.
            Stopping: the batch is stopped meanwhile.
        """
        if not hold(self._write):
            self._watch(hold, stopped)
        renewer = threading.Thread(target=self._renew, args=(stopped,), name="lease", daemon=True)
        renewer.start()
        try:
            yield
        except Stopping:
            if self._is_lost:
                raise taken() from None
            raise
        finally:
            self._ended.set()
            renewer.join()
            self._remove()

    def is_held(self) -> bool:
        """Write it again; False where another batch has taken it over. Raises `Away` and `Failed`."""
        if not self._is_lost and not self._write():
            self._is_lost = True
        return not self._is_lost

    def _watch(self, hold: Hold, stopped: threading.Event) -> None:
        """Take over a lease that no one renews."""
        who, first = hold(self._read), self._objects.etag(LOCK)
        until = time.monotonic() + LEASE_S
        while first and time.monotonic() < until and not stopped.wait(LOOK_S):
            began = time.monotonic()
            who, found = hold(self._read), self._objects.etag(LOCK)
            if found and found != first:
                raise taken(who)
            first = found
            if time.monotonic() - began > SLOW_S:
                until = time.monotonic() + LEASE_S
        if stopped.is_set():
            raise Stopping
        if not hold(self._write):
            raise taken()

    def _renew(self, stopped: threading.Event) -> None:
        pause_s = RENEW_S
        while not self._ended.wait(pause_s):
            pause_s = RENEW_S
            try:
                if not self.is_held():
                    stopped.set()
                    return
            except (Away, Failed):
                pause_s = LOOK_S

    def _write(self) -> bool:
        owner = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
        return self._objects.write(LOCK, json.dumps(owner).encode())

    def _read(self) -> str:
        """Whose it is; empty where there is none."""
        if (found := self._objects.read(LOCK)) is None:
            return ""
        try:
            owner = json.loads(found)
            return f", process {owner['process']} on {owner['host']}"
        except (ValueError, KeyError, TypeError) as exc:
            raise StartError(f"OUTPUT: {LOCK} is not one of a batch; next: another OUTPUT") from exc

    def _remove(self) -> None:
        """Remove it where it is held: written once more, since some servers know no condition for removals."""
        with suppress(Away, Failed):  # the next batch takes it over
            if self.is_held():
                self._objects.remove(LOCK)
