"""A light load generator: requests built beforehand, one thread, one poll for all connections, answers not parsed."""

import http.client
import json
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_HOST = "127.0.0.1"
_TIMEOUT_S = 60.0
_AFTER_FAILURE_S = 0.05  # else a server that is away would be asked in a tight loop
_BOUNDARY = b"nereid-boundary"


class LoadError(Exception):
    """A server does not answer; the message says what it did instead."""


@dataclass(frozen=True)
class Question:
    """A request, but for the port."""

    path: str
    content_type: str
    body: bytes

    def encode(self, port: int) -> bytes:
        """The bytes to send."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


def form(path: str, picture: bytes, **fields: str) -> Question:
    """A multipart form: the picture as `image`, and text fields."""
    parts = [b'name="%s"\r\n\r\n%s' % (name.encode(), value.encode()) for name, value in fields.items()]
    parts.append(b'name="image"; filename="picture.jpg"\r\nContent-Type: image/jpeg\r\n\r\n%s' % picture)
    body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (_BOUNDARY, part) for part in parts)
    return Question(path, f"multipart/form-data; boundary={_BOUNDARY.decode()}", body + b"--%s--\r\n" % _BOUNDARY)


def ask(port: int, question: Question) -> tuple[Any, int]:
    """Ask once.

    Returns:
        The JSON of the answer, and the size of its body in bytes.

    Raises:
        LoadError: there is no good answer.
    """
    connection = http.client.HTTPConnection(_HOST, port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", question.path, question.body, {"Content-Type": question.content_type})
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise LoadError(f"{question.path}: {response.status} {body[:300].decode(errors='replace')}")
        return json.loads(body), len(body)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise LoadError(f"{question.path}: {type(exc).__name__} {exc}") from exc
    finally:
        connection.close()


@dataclass
class Load:
    """What came back.

    Attributes:
        latencies_s: of each good answer.
        answered: good answers, also those after the time was over.
        span_s: from the first request to the last answer that counts.
        whole_s: until the last answer of all.
        cpu_s: of the generator.
        failures: what went wrong, once for each request.
    """

    latencies_s: list[float] = field(default_factory=list)
    answered: int = 0
    span_s: float = 0.0
    whole_s: float = 0.0
    cpu_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Good answers."""
        return len(self.latencies_s) / self.span_s if self.span_s else 0.0

    def percentiles_ms(self) -> Mapping[str, float | None]:
        """p50, p95 and p99; None where nothing was answered."""
        if not self.latencies_s:
            return dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"))
        values = np.percentile(self.latencies_s, (50, 95, 99)) * 1000
        return dict(zip(("p50_ms", "p95_ms", "p99_ms"), map(float, values), strict=True))


class _Connection:
    """One connection: a request is under way, or it is being opened again."""

    def __init__(self, port: int, request: bytes, at_least: int) -> None:
        self._port, self._request, self._at_least = port, request, at_least
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection((_HOST, self._port), _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        self._received, self._wanted = bytearray(), 0
        self.started = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Take what has come; whether the answer is complete.

        Raises:
            LoadError: it is not one.
        """
        block = self.socket.recv(1 << 18)
        if not block:
            raise LoadError("the connection was closed")
        self._received += block
        if not self._wanted:
            self._wanted = self._measure()
        return 0 < self._wanted <= len(self._received)

    def _measure(self) -> int:
        """Bytes of the whole answer; 0 while its head is not all there."""
        head, end, _ = self._received.partition(b"\r\n\r\n")
        if not end:
            return 0
        status, *lines = head.split(b"\r\n")
        if status.split(b" ", 2)[1] != b"200":
            raise LoadError(f"{status.decode(errors='replace')}, expected 200")
        lengths = [line.partition(b":")[2] for line in lines if line.lower().startswith(b"content-length:")]
        if not lengths or int(lengths[0]) < self._at_least:
            raise LoadError(f"content-length {lengths}, expected at least {self._at_least}")
        return len(head) + len(end) + int(lengths[0])


def drive(port: int, question: Question, *, connections: int, seconds: float, at_least: int) -> Load:
    """Ask over so many connections at a time, each as soon as it was answered.

    Args:
        port: on loopback.
        question: asked again and again.
        connections: so many requests are under way.
        seconds: requests that are under way then are waited for, and do not count.
        at_least: bytes of a body that can be an answer.

    Raises:
        LoadError: nothing listens, or no answer comes at all.
    """
    request = question.encode(port)
    load = Load()
    cpu_s = time.process_time()
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(connections):
                connection = _Connection(port, request, at_least)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.send()
            _loop(selector, load, began, seconds)
        except OSError as exc:
            raise LoadError(f"{question.path}: {type(exc).__name__} {exc}") from exc
        finally:
            for key in list(selector.get_map().values()):
                key.data.socket.close()
    load.cpu_s, load.whole_s = time.process_time() - cpu_s, time.perf_counter() - began
    return load


def _loop(selector: selectors.BaseSelector, load: Load, began: float, seconds: float) -> None:
    """Until the time is over and every connection has its answer."""
    while selector.get_map():
        ready = selector.select(_TIMEOUT_S)
        if not ready:
            raise LoadError(f"no answer within {_TIMEOUT_S:.0f} s")
        for key, _ in ready:
            connection: _Connection = key.data
            try:
                if not connection.receive():
                    continue
            except (OSError, LoadError) as exc:
                load.failures.append(str(exc))
                selector.unregister(connection.socket)
                connection.socket.close()
                time.sleep(_AFTER_FAILURE_S)
                connection.open()
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                answered = time.perf_counter()
            else:
                answered = time.perf_counter()
                load.answered += 1
                if answered - began <= seconds:
                    load.latencies_s.append(answered - connection.started)
                    load.span_s = answered - began
            if answered - began < seconds:
                connection.send()
            else:
                selector.unregister(connection.socket)
                connection.socket.close()
