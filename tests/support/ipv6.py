"""A network that has IPv6 alone, where this user may make one: a namespace whose loopback has no 127.0.0.1."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_ONLY_IPV6 = "ip link set lo up && ip address del 127.0.0.1/8 dev lo && echo up && exec sleep infinity"
_WITHOUT_IPV6 = "ip link set lo up && ip -6 address del ::1/128 dev lo && echo up && exec sleep infinity"


def missing() -> str:
    """Why nothing can be tried here; empty where it can."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as exc:
        return f"this machine has no IPv6: {exc.strerror}"
    return ""


def may_isolate() -> bool:
    """Whether this user may make a namespace."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "ip")))


@contextmanager
def only_ipv6() -> Iterator[list[str]]:
    """What to put before a command so that it runs where there is no IPv4; nothing where that is not allowed."""
    if not may_isolate():
        yield []
        return
    with _namespace(_ONLY_IPV6) as prefix:
        yield prefix


@contextmanager
def without_ipv6() -> Iterator[list[str]]:
    """The same where loopback has no IPv6; needs root."""
    with _namespace(_WITHOUT_IPV6) as prefix:
        yield prefix


@contextmanager
def _namespace(script: str) -> Iterator[list[str]]:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "up\n"
            yield ["nsenter", "--target", str(holder.pid), "--net", "--"]
        finally:
            holder.kill()
