"""One batch at a time writes to an OUTPUT; one that was killed keeps no other from going on."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from worker.aws import code_of, translating
from worker.errors import Away, Failed, StartError, Stopping

LOCK = "lock.json"
_RENEW_S, _LEASE_S, _LOOK_S = 10.0, 30.0, 1.0
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404"}


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
    batch that was killed, and is taken over, by one of those that try. No clocks are compared.

    Attributes:
        is_lost: another batch has taken it over, after an outage of S3 or of this machine: nothing may be written.
    """

    def __init__(self, s3: Any, bucket: str, key: str) -> None:
        """Nothing is sent yet."""
        self._s3, self._bucket, self._key = s3, bucket, key
        self._etag, self._ended = "", threading.Event()
        self.is_lost = False

    @contextmanager
    def held(self, hold: Callable[[Callable[[], Any]], Any], *, stopped: threading.Event) -> Iterator[None]:
        """Hold the lease.

        Args:
            hold: calls a function until nothing that it needs is away.
            stopped: ends the watching; set where the lease is lost.

        Raises:
            StartError: another batch has it.
            Stopping: the batch is stopped meanwhile.
        """
        if not hold(partial(self._write, IfNoneMatch="*")):
            self._watch(hold, stopped)
        renewer = threading.Thread(target=self._renew, args=(stopped,), name="lease", daemon=True)
        renewer.start()
        try:
            yield
        finally:
            self._ended.set()
            renewer.join()
            if not self.is_lost:
                self._remove()

    def _watch(self, hold: Callable[[Callable[[], Any]], Any], stopped: threading.Event) -> None:
        """Take over a lease that no one renews."""
        first, who = hold(self._read)
        until = time.monotonic() + _LEASE_S
        while first and time.monotonic() < until and not stopped.wait(_LOOK_S):
            found, who = hold(self._read)
            if found and found != first:
                raise taken(f", {who}")
            first = found
        if stopped.is_set():
            raise Stopping
        if not hold(partial(self._write, **({"IfMatch": first} if first else {"IfNoneMatch": "*"}))):
            raise taken()

    def _renew(self, stopped: threading.Event) -> None:
        while not self._ended.wait(_RENEW_S):
            try:
                self.is_lost = not self._write(IfMatch=self._etag)
            except (Away, Failed):  # the next time
                continue
            if self.is_lost:
                stopped.set()
                return

    def _write(self, **condition: str) -> bool:
        """Write the object on a condition; False where that does not hold."""
        body = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}).encode()
        with translating(f"writing {self._key}"):
            try:
                found = self._s3.put_object(Bucket=self._bucket, Key=self._key, Body=body, **condition)
            except ClientError as exc:
                if code_of(exc) not in _TAKEN:
                    raise
                return False
        self._etag = found["ETag"]
        return True

    def _read(self) -> tuple[str, str]:
        """ETag, and whose it is; empty where there is none."""
        with translating(f"reading {self._key}"):
            try:
                found = self._s3.get_object(Bucket=self._bucket, Key=self._key)
            except ClientError as exc:
                if code_of(exc) not in _TAKEN:
                    raise
                return "", ""
            owner = json.loads(found["Body"].read())
        return found["ETag"], f"process {owner['process']} on {owner['host']}"

    def _remove(self) -> None:
        try:
            with translating(f"removing {self._key}"):
                self._s3.delete_object(Bucket=self._bucket, Key=self._key)
        except (Away, Failed):  # the next batch takes it over
            return
