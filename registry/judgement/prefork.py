"""Starts processes with limits: a small process with the imports waits here, and forks for each check.

A Python takes half a second to start, a fork 5 ms. The parent sends one end of a socket for each; at the other end a
guard waits for the process and writes its status. No file is used: a temporary folder may vanish.
"""

import json
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from registry.errors import Incomplete, VersionRejected

_REASON = 2000
_MIB = 2**20


def main(descriptor: int) -> None:
    """Serve until the other end of the socket is closed.

    Args:
        descriptor: of a socket, over which one byte and one descriptor come for each process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the socket
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for a guard
    with socket.socket(fileno=descriptor) as channel:
        while True:
            data, descriptors, *_ = socket.recv_fds(channel, 1, 1)
            if not data:
                return
            if os.fork() == 0:
                channel.close()
                os._exit(_guard(socket.socket(fileno=descriptors[0])))
            os.close(descriptors[0])


def _guard(peer: socket.socket) -> int:
    """Runs in the child: fork the worker, wait, append its exit status to the response."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os._exit(_work(peer))
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # the parent is gone
        peer.sendall(b"\n=%d\n" % os.waitstatus_to_exitcode(status))
    return 0


def _work(peer: socket.socket) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with peer.makefile("rb") as file:
        cpu_s, wall_s, memory_bytes, function, args = pickle.load(file)  # noqa: S301 - of our parent
    _confine(cpu_s, wall_s, memory_bytes)
    response = _call(function, args, memory_bytes)
    peer.sendall(json.dumps(response).encode())
    return 0


def _confine(cpu_s: int, wall_s: float, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The second limit kills where the signal of the first is ignored.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    signal.setitimer(signal.ITIMER_REAL, wall_s)  # SIGALRM ends it, whatever it does
    with suppress(OSError):  # not Linux: no limit of memory
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _call(function: Callable[..., Any], args: tuple[Any, ...], memory_bytes: int) -> dict[str, Any]:
    try:
        return {"result": function(*args)}
    except VersionRejected as exc:
        return {"rejected": str(exc)}
    except Incomplete as exc:
        return {"incomplete": str(exc), "patient": exc.patient}
    except MemoryError:
        return {"rejected": f"got more than {memory_bytes // _MIB} MiB of memory for its check, expected less"}
    except OSError as exc:
        return {"failed": exc.errno or 0, "reason": exc.strerror or str(exc)}
    except Exception as exc:  # noqa: BLE001 - the caller decides
        return {"defect": f"{type(exc).__name__}: {exc}"[:_REASON] + "\n" + traceback.format_exc(limit=-8)[-_REASON:]}


if __name__ == "__main__":
    import registry.judgement.completion
    import registry.judgement.version  # noqa: F401 - their functions are called in the forks
    from registry.manifest import load_validator

    load_validator()
    if os.environ.get("PREDICTOR_SIGNED_BY"):
        import_module("registry.signatures.verification")

    main(int(sys.argv[1]))
