"""Network namespaces with IPv6 only, or without IPv6, where this user may create them."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_ONLY_IPV6 = "ip link set lo up && ip address del 127.0.0.1/8 dev lo && echo up && exec sleep infinity"
_WITHOUT_IPV6 = "ip link set lo up && ip -6 address del ::1/128 dev lo && echo up && exec sleep infinity"


def missing() -> str:
    """Reason to skip; empty where IPv6 works."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as exc:
        return f"this machine has no IPv6: {exc.strerror}"
    return ""


def may_isolate() -> bool:
    """Whether this user may create a network namespace."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "ip")))


@contextmanager
def only_ipv6() -> Iterator[list[str]]:
    """Command prefix for a namespace without IPv4; empty where namespaces are not allowed."""
    if not may_isolate():
        yield []
        return
    with _namespace(_ONLY_IPV6) as prefix:
        yield prefix


@contextmanager
def without_ipv6() -> Iterator[list[str]]:
    """Command prefix for a namespace without IPv6; needs root."""
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
