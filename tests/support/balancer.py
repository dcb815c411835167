"""A load balancer of connections like a Kubernetes Service: round robin over its ports."""

import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any


@contextmanager
def balance(ports: Sequence[int], *, address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Forward connections to these ports on loopback, round robin; yields the port that it listens on."""
    targets = itertools.cycle(ports)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", next(targets))) as server:
                back = threading.Thread(target=_pass_on, args=(server, self.request))
                back.start()
                _pass_on(self.request, server)
                back.join()

    class Server(ThreadingTCPServer):
        allow_reuse_address = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Server((address, port), Handler) as balancer:
        thread = threading.Thread(target=balancer.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(balancer.server_address[1])
        finally:
            balancer.shutdown()
            thread.join()


def _pass_on(source: Any, target: Any) -> None:
    """Forward until the source ends."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
