"""Ports for the servers that tests start."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

# Below Linux' range for clients (net.ipv4.ip_local_port_range, from 32768), of which a connection of another test could
# use a port before the server under test binds it.
_PORTS = range(12_000, 32_768)
_TRIES = 2_000
_given: set[int] = set()


def find_free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, each given to one process of these tests only."""
    with ExitStack() as probes:
        ports: list[int] = []
        for port in random.sample(_PORTS, _TRIES):
            if len(ports) == count:
                break
            if port in _given:
                continue
            try:
                fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            _given.add(port)
            ports.append(port)
        return ports


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@cache
def _locks() -> int:
    """A file with a byte for each port: its holder locks it, and the end of the process unlocks."""
    path = Path(tempfile.gettempdir()) / f"nereid-tests-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
