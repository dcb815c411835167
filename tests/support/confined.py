"""System calls of a confined process: `python -m tests.support.confined` tries them and prints the outcomes as JSON.

Raw system calls, because an attacker who controls a process uses no library. With arguments it runs the transformer
with them, and tries the calls in another thread of it.
"""

import ctypes
import errno
import http.client
import importlib
import json
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest

from transformer.program import main as run_transformer
from transformer.seccomp import block_rings, confine

_X86 = platform.machine() == "x86_64"
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_PAGE = 4096
_PARENT, _ITSELF = os.getppid(), os.getpid()
_ANONYMOUS_PRIVATE = 0x22
_X32 = 0x40000000


def find_libseccomp() -> Any:
    """libseccomp, which has the numbers of all calls on all architectures."""
    name = find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp, which has the numbers of calls, is missing; next: apt-get install libseccomp2")
    return ctypes.CDLL(name)


def call(x86_64: int, aarch64: int, *arguments: Any) -> int:
    """Make a system call.

    Raises:
        OSError: the kernel rejects it.
    """
    words = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    done: int = _LIBC.syscall(ctypes.c_long(x86_64 if _X86 else aarch64), *words)
    if done < 0:
        raise OSError(ctypes.get_errno(), "")
    return done


def child(x86_64: int, aarch64: int, *arguments: int) -> None:
    """A call that returns twice where it is allowed."""
    if call(x86_64, aarch64, *arguments) == 0:
        os._exit(0)


def listening() -> None:
    """Listen on a socket other than the allowed one."""
    with socket.socket() as other:
        other.listen()


def bound() -> None:
    """Bind a port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))


def executable() -> None:
    """Make written memory executable."""
    address = call(9, 222, 0, _PAGE, 3, _ANONYMOUS_PRIVATE, -1, 0)
    call(10, 226, address, _PAGE, 5)


def on_a_thread() -> None:
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(30)


def connected() -> None:
    with socket.create_connection(("127.0.0.1", _PORT), timeout=30) as connection:
        connection.sendall(b"x")


def accepted() -> None:
    """Listen on the socket that was bound before, and accept a connection."""
    _SOCKET.listen()
    connected()
    assert _SOCKET.accept()[0].recv(1) == b"x"


def resolved() -> None:
    socket.getaddrinfo("localhost", 80)


def loaded() -> None:
    """Import an extension that Python has not loaded yet."""
    assert "_lsprof" not in sys.modules
    importlib.import_module("_lsprof")


_SOCKET = socket.socket()
_SOCKET.bind(("127.0.0.1", 0))
_PORT = _SOCKET.getsockname()[1]
_FILE = Path(tempfile.gettempdir(), f"confined-{_ITSELF}")
_NAME = str(_FILE).encode()
_EXISTING = Path(tempfile.gettempdir(), f"existing-{_ITSELF}")

REJECTED: dict[str, Callable[[], Any]] = {
    "fork": lambda: child(57, 220, *(() if _X86 else (17, 0, 0, 0, 0))),
    "vfork": lambda: child(58, 220, *(() if _X86 else (17, 0, 0, 0, 0))),
    "clone of a process": lambda: child(56, 220, 17, 0, 0, 0, 0),
    "clone into namespaces": lambda: child(56, 220, 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": lambda: child(435, 435, 0, 0),
    "execve": lambda: call(59, 221, b"/bin/true", 0, 0),
    "execveat": lambda: call(322, 281, -100, b"/bin/true", 0, 0, 0),
    "ptrace": lambda: call(101, 117, 16, _PARENT, 0, 0),
    "process_vm_readv": lambda: call(310, 270, _PARENT, 0, 0, 0, 0, 0),
    "process_vm_writev": lambda: call(311, 271, _PARENT, 0, 0, 0, 0, 0),
    "kill": lambda: call(62, 129, _PARENT, 0),
    "kill of itself by process": lambda: call(62, 129, 0, 0),
    "tkill": lambda: call(200, 130, _PARENT, 0),
    "tgkill": lambda: call(234, 131, _PARENT, _PARENT, 0),
    "rt_sigqueueinfo": lambda: call(129, 138, _PARENT, 0, 0),
    "pidfd_open": lambda: call(434, 434, _PARENT, 0),
    "pidfd_getfd": lambda: call(438, 438, 0, 0, 0),
    "open for writing": lambda: call(257, 56, -100, _NAME, os.O_WRONLY | os.O_CREAT, 0o600),
    "open to read and write": lambda: call(257, 56, -100, b"/dev/null", os.O_RDWR, 0),
    "open to truncate": lambda: call(257, 56, -100, str(_EXISTING).encode(), os.O_TRUNC, 0),
    "open of a nameless file": lambda: call(257, 56, -100, b"/tmp", os.O_TMPFILE | os.O_WRONLY, 0o600),
    "openat2": lambda: call(437, 437, -100, _NAME, 0, 0),
    "open_by_handle_at": lambda: call(304, 265, -100, 0, 0),
    "unlink": lambda: call(263, 35, -100, str(_EXISTING).encode(), 0),
    "mkdir": lambda: call(258, 34, -100, _NAME, 0o700),
    "symlink": lambda: call(266, 36, b"/etc", -100, _NAME),
    "rename": lambda: call(316, 276, -100, str(_EXISTING).encode(), -100, _NAME, 0),
    "chmod": lambda: call(268, 53, -100, str(_EXISTING).encode(), 0o777),
    "ftruncate": lambda: call(77, 46, 2, 0),
    "memfd_create": lambda: call(319, 279, b"a", 0),
    "memfd_secret": lambda: call(447, 447, 0),
    "memory to write and run": lambda: call(9, 222, 0, _PAGE, 7, _ANONYMOUS_PRIVATE, -1, 0),
    "written memory to run": executable,
    "pkey_mprotect": lambda: call(329, 288, 0, _PAGE, 5, -1),
    "bind": bound,
    "listen": listening,
    "socket of another process": lambda: call(41, 198, 1, 1, 0),
    "socket of the kernel": lambda: call(41, 198, 16, 3, 0),
    "socket of ciphers": lambda: call(41, 198, 38, 5, 0),
    "socket of raw packets": lambda: call(41, 198, 17, 3, 0),
    "io_uring_setup": lambda: call(425, 425, 1, 0),
    "io_uring_enter": lambda: call(426, 426, 0, 0, 0, 0, 0),
    "bpf": lambda: call(321, 280, 0, 0, 0),
    "userfaultfd": lambda: call(323, 282, 0),
    "perf_event_open": lambda: call(298, 241, 0, 0, -1, -1, 0),
    "keyctl": lambda: call(250, 219, 0, 0),
    "add_key": lambda: call(248, 217, 0, 0, 0, 0),
    "request_key": lambda: call(249, 218, 0, 0, 0, 0),
    "unshare": lambda: call(272, 97, 0x10000000),
    "setns": lambda: call(308, 268, 0, 0),
    "mount": lambda: call(165, 40, 0, 0, 0, 0, 0),
    "umount2": lambda: call(166, 39, b"/nowhere", 0),
    "pivot_root": lambda: call(155, 41, 0, 0),
    "chroot": lambda: call(161, 51, b"/"),
    "fsopen": lambda: call(430, 430, b"proc", 0),
    "open_tree": lambda: call(428, 428, -100, b"/", 0),
    "kexec_load": lambda: call(246, 104, 0, 0, 0, 0),
    "init_module": lambda: call(175, 105, 0, 0, 0),
    "finit_module": lambda: call(313, 273, 0, 0, 0),
    "setuid": lambda: call(105, 146, os.getuid()),
    "capset": lambda: call(126, 91, 0, 0),
    "prctl of core dumps": lambda: call(157, 167, 4, 1, 0, 0, 0),
    "another filter": lambda: call(317, 277, 1, 0, 0),
    "ioctl of a terminal's input": lambda: call(16, 29, 0, 0x5412, b"x"),
    "fcntl of an owner": lambda: call(72, 25, 0, 8, _PARENT),
    "shmget": lambda: call(29, 194, 0, _PAGE, 0o1600),
    "personality": lambda: call(135, 92, 0x0400000),
    "prlimit64": lambda: call(302, 261, _PARENT, 7, 0, 0),
    "setpriority": lambda: call(141, 140, 0, _PARENT, 0),
    "a call that no kernel has": lambda: call(9999, 9999),
}
if _X86:
    REJECTED |= {
        "x32": lambda: call(_X32 | 520, 0, b"/bin/true", 0, 0),  # execve's number there
        "open as of old": lambda: call(2, 0, _NAME, os.O_WRONLY | os.O_CREAT, 0o600),
        "creat": lambda: call(85, 0, _NAME, 0o600),
        "fork by another number's upper half": lambda: child((1 << 32) | 57, 0),
    }
ALLOWED: dict[str, Callable[[], Any]] = {
    "thread": on_a_thread,
    "a file to read": lambda: Path(__file__).read_text(),
    "a folder to list": lambda: list(Path("/").iterdir()),
    "the socket that was bound": accepted,
    "names": resolved,
    "an extension that Python loads late": loaded,
    "raise": lambda: signal.raise_signal(signal.SIGUSR1),
    "much memory": lambda: bytearray(2**26),
    "a pair of sockets": socket.socketpair,
    "the clock": os.times,
}
PROBES = [*REJECTED, *ALLOWED]


def outcome(probe: Callable[[], Any]) -> str:
    """`done`, or the name of the error."""
    try:
        probe()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "done"


def attempt(probes: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
    """Try the probes in order; outcomes by name."""
    return {name: outcome(probe) for name, probe in probes.items()}


def main() -> int:
    """Confine this process, or run the transformer, which does; try the calls in a thread that is older."""
    _EXISTING.touch()
    signal.signal(signal.SIGUSR1, lambda *_: None)
    if len(sys.argv) > 1:
        port = int(sys.argv[sys.argv.index("--http_port") + 1])
        threading.Thread(target=attempt_once_it_serves, args=(port,), daemon=True).start()
        return run_transformer()
    start = threading.Event()
    thread = threading.Thread(target=lambda: (start.wait(), print(json.dumps(attempt(REJECTED | ALLOWED)))))
    thread.start()
    block_rings()
    confine(_SOCKET.fileno())
    start.set()
    thread.join()
    return 0


def get_live(port: int) -> None:
    """Send the first request: the port accepts connections before the server reads them."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v2/health/live")
    connection.getresponse().read()


def attempt_once_it_serves(port: int) -> None:
    """Try the calls in the transformer's process once it serves."""
    while outcome(lambda: get_live(port)) != "done":
        time.sleep(0.05)
    print(json.dumps(attempt(REJECTED)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
