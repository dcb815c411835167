"""Runs a function that reads a stranger's bytes in a process of its own, which may not take long, nor much memory.

Parsers are quadratic, recursive or wrong for some input that nobody has thought of yet. There it ends a process that
holds nothing, instead of every update. What comes back is JSON: the process is not trusted with more.
"""

import errno
import json
import multiprocessing
import resource
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer
from typing import Any

from registry.errors import Incomplete, Refused

_LARGEST_REPLY = 16 * 2**20
_REASON = 2000
# A fork of a small process that has the imports: 20 ms, where a Python that starts takes half a second.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["registry.judgement"])


@dataclass(frozen=True)
class Limits:
    """What one judgement may take.

    Attributes:
        cpu_s: seconds of CPU: the same on a busy machine. The largest of our own models takes 0.1.
        wall_s: seconds; a disk may hang.
        memory_bytes: beyond what the process has when it begins.
    """

    cpu_s: int = 20
    wall_s: float = 300.0
    memory_bytes: int = 384 * 2**20


USUAL = Limits()


class Defect(Exception):
    """Nobody foresaw how the function failed; the message has the traceback."""


def confined(function: Callable[..., Any], *args: Any, limits: Limits = USUAL) -> Any:
    """Call a function in a process of its own, and return what it returned.

    Args:
        function: of a module; returns what JSON has.
        args: its arguments, which can be pickled.
        limits: of the process.

    Raises:
        Refused, Incomplete: the function said so; Refused also where it needs more than the limits, or crashes.
        OSError: it could not read or write; TimeoutError, which is one: it hung, or was ended from outside.
        Defect: it failed otherwise.
    """
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_reply, args=(sender, limits, function, args), daemon=True)
    with receiver:
        with sender:
            process.start()
        timer = Timer(limits.wall_s, process.kill)
        timer.start()
        data = None
        try:
            with suppress(EOFError):  # it has ended without a word
                data = receiver.recv_bytes(_LARGEST_REPLY)
            process.join()
        finally:
            timer.cancel()
    if data is None:
        raise _explain(process.exitcode or 0, limits)
    return _read_reply(json.loads(data))


def _explain(status: int, limits: Limits) -> Exception:
    signal_number = -status
    if signal_number == signal.SIGXCPU:
        return Refused(f"got more than {limits.cpu_s} s of CPU to judge it, expected less")
    if signal_number in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        return TimeoutError(
            errno.ETIMEDOUT, f"judging it was ended after {limits.wall_s:g} s, or from outside (signal {signal_number})"
        )
    if status >= 0:
        return Defect(f"the process that judges it ended with status {status}")
    return Refused(f"the process that judged it crashed (signal {signal_number})")


def _read_reply(reply: dict[str, Any]) -> Any:
    match reply:
        case {"refused": reason}:
            raise Refused(reason)
        case {"incomplete": reason, "patient": patient}:
            raise Incomplete(reason, patient=patient)
        case {"failed": number, "reason": reason}:
            raise OSError(number, reason)
        case {"defect": reason}:
            raise Defect(reason)
    return reply["result"]


def _reply(sender: Connection, limits: Limits, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In the process: call the function, and send what became of it."""
    _confine(limits)
    reply: dict[str, Any]
    try:
        reply = {"result": function(*args)}
    except Refused as exc:
        reply = {"refused": str(exc)}
    except Incomplete as exc:
        reply = {"incomplete": str(exc), "patient": exc.patient}
    except MemoryError:
        reply = {"refused": f"got more than {limits.memory_bytes >> 20} MiB of memory to judge it, expected less"}
    except OSError as exc:
        reply = {"failed": exc.errno or 0, "reason": exc.strerror or str(exc)}
    except Exception as exc:  # noqa: BLE001 - the caller says what it makes of it
        reply = {"defect": f"{type(exc).__name__}: {exc}"[:_REASON] + "\n" + traceback.format_exc(limit=-8)[-_REASON:]}
    sender.send_bytes(json.dumps(reply).encode())


def _confine(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The second limit kills where the signal of the first is not seen.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
    with suppress(OSError):  # not Linux: no limit of memory
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
