"""Runs a function that parses untrusted bytes in a process of its own, with limits of time and memory.

Parsers are quadratic, recursive or wrong for some input that is not known yet. Such input can then crash only a process
without secrets or state. It may return only JSON.
"""

import atexit
import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from registry.errors import Incomplete, VersionRejected

_LARGEST_RESPONSE = 16 * 2**20
_BLOCK_BYTES = 2**16
_GRACE_S = 30.0  # beyond the time limit of the process
# At most two, so that they and the synchroniser fit into the memory of its container.
_AT_ONCE = threading.BoundedSemaphore(2)
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class Limits:
    """Limits of one check.

    Attributes:
        cpu_s: seconds of CPU: the same on a busy machine. The largest of our own models takes 0.1.
        wall_s: seconds; a disk may hang.
        memory_bytes: beyond the memory of the process at its start.
    """

    cpu_s: int = 20
    wall_s: float = 300.0
    memory_bytes: int = 320 * 2**20


USUAL = Limits()


class Defect(Exception):
    """The function failed in an unexpected way; the message has the traceback."""


class _Starter:
    """The process of `registry.judgement.prefork`, started when it is needed, and again after it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> socket.socket:
        """A process that waits for a request, at the other end of this socket.

        Raises:
            OSError: the process cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            with self._lock, theirs:
                if self._channel is None or self._process is None or self._process.poll() is not None:
                    self._begin()
                try:
                    self._send(theirs)
                except OSError:  # it has ended
                    self._begin()
                    self._send(theirs)
        except OSError:
            ours.close()
            raise
        return ours

    def _send(self, peer: socket.socket) -> None:
        assert self._channel is not None, "it has begun"  # noqa: S101
        socket.send_fds(self._channel, [b"x"], [peer.fileno()])

    def _begin(self) -> None:
        self.stop()
        self._channel, theirs = socket.socketpair()
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is here
        # Threads would not survive the forks.
        environ = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "registry.judgement.prefork", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def kill(self) -> None:
        """End it where it does not respond."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def stop(self) -> None:
        """End it; its children end by themselves."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.wait()
        self._channel = self._process = None


_STARTER = _Starter()
atexit.register(_STARTER.stop)


def confined(function: Callable[..., Any], *args: Any, limits: Limits = USUAL) -> Any:
    """Call a function in a process of its own, and return its result.

    Args:
        function: of a module; its result is JSON.
        args: its arguments, which can be pickled.
        limits: of the process.

    Raises:
        VersionRejected, Incomplete: the function raised it.
        VersionRejected: the process exceeded the limits, or crashed.
        OSError: it could not read or write, or not be started; TimeoutError, which is one: it hung, or was ended from
            outside.
        Defect: it failed otherwise.
    """
    request = pickle.dumps((limits.cpu_s, limits.wall_s, limits.memory_bytes, function, args))
    with _AT_ONCE:
        # Nothing comes where the starter has just ended.
        data = _exchange(request, limits) or _exchange(request, limits)
    response, _, status = data.rpartition(b"\n=")
    if len(data) >= _LARGEST_RESPONSE:
        raise VersionRejected(f"got a result of {len(data)} bytes or more from its check, expected less")
    if not status.strip():
        raise TimeoutError(errno.ETIMEDOUT, "the starter of the checking process has ended, twice")
    if int(status):
        raise _explain(int(status), limits)
    try:
        return _read_response(json.loads(response))
    except (ValueError, KeyError) as exc:
        raise Defect(f"got no result from its check: {exc}") from exc


def _exchange(request: bytes, limits: Limits) -> bytes:
    """Response to a request, if there is one, and the status; empty where the starter ended.

    Raises:
        OSError: there is no starter; TimeoutError: nothing came, although the process should have ended.
    """
    with _STARTER.start() as peer:
        peer.settimeout(limits.wall_s + _GRACE_S)
        data = b""
        try:
            with suppress(BrokenPipeError):  # it has ended; its status follows
                peer.sendall(request)
                peer.shutdown(socket.SHUT_WR)
            while len(data) < _LARGEST_RESPONSE and (block := peer.recv(_BLOCK_BYTES)):
                data += block
        except ConnectionError:
            return data
        except TimeoutError:
            _STARTER.kill()
            raise
        return data


def _explain(status: int, limits: Limits) -> Exception:
    if status > 0:
        return Defect(f"the checking process ended with status {status}")
    if -status == signal.SIGXCPU:
        return VersionRejected(f"got more than {limits.cpu_s} s of CPU for its check, expected less")
    if -status == signal.SIGALRM:
        return TimeoutError(errno.ETIMEDOUT, f"its check was ended after {limits.wall_s:g} s")
    if -status in _FROM_OUTSIDE:
        return TimeoutError(errno.ETIMEDOUT, f"its check was ended from outside (signal {-status})")
    return VersionRejected(f"the process that checked it crashed (signal {-status})")


def _read_response(response: dict[str, Any]) -> Any:
    match response:
        case {"rejected": reason}:
            raise VersionRejected(reason)
        case {"incomplete": reason, "patient": patient}:
            raise Incomplete(reason, patient=patient)
        case {"failed": number, "reason": reason}:
            raise OSError(number, reason)
        case {"defect": reason}:
            raise Defect(reason)
    return response["result"]
