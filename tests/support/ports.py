"""Ports for the servers that tests start."""

import os
import random
import socket
from contextlib import ExitStack, suppress


def find_free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, and that no other worker of this run (make test) is given.

    They lie below those that Linux gives to clients (net.ipv4.ip_local_port_range, from 32768): of those,
    a connection of another test can take one before the server under test binds it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    with ExitStack() as probes:
        ports: list[int] = []
        for port in random.sample(range(12_000 + worker, 32_768, workers), 2_000):
            if len(ports) == count:
                break
            with suppress(OSError):
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports
