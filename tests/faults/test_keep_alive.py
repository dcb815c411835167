"""Connections that a load balancer keeps between two requests, scaled: its 60 s are one second here."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import find_free_ports
from tests.support.transformer import Transformer, start_transformer

_BALANCER_S = 1.0
_LONGER_S = 1.5  # 75 to 60 were 1.25; a busy machine may be late by more than the rest
_CONNECTIONS, _ROUNDS = 100, 10  # 1,000 requests
_LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
_REJECTED = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
_UNTIL_READ_S = 0.05


@dataclass
class Balancer:
    """One upstream connection of a load balancer, which closes it at its own limit.

    It sends without a check whether the other side has closed: no client sees a close that is on its way.

    Attributes:
        port: of the transformer.
        idle_s: how long it keeps a connection without a request.
        counts: of requests: "sent", "reused" (over a connection that was open), "lost", and "closing" (whose response
            announced the end of the connection).
    """

    port: int
    idle_s: float
    counts: Counter[str] = field(default_factory=Counter)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _idle_since: float = 0.0

    async def send(self, body_behind: bytes = b"") -> None:
        """Send a request over the connection, or a new one; `body_behind` is sent once the response is here."""
        if self._writer is not None and time.monotonic() - self._idle_since >= self.idle_s:
            self.close()
        is_reused = self._writer is not None
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.counts["sent"] += 1
        self.counts["reused"] += is_reused
        try:
            self._writer.write(_REJECTED if body_behind else _LIVE)
            head = await self._reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split()[0])
            await self._reader.readexactly(size)
            if body_behind:
                await asyncio.sleep(_UNTIL_READ_S)
                self._writer.write(body_behind)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.counts["lost"] += 1
            self.close()
            return
        self._idle_since = time.monotonic()
        if b"connection: close" in head.lower():
            self.counts["closing"] += 1
            self.close()

    async def open(self) -> None:
        """Open a connection ahead of the first request."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._idle_since = time.monotonic()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def balance(port: int, idle_s: float, *works: Callable[[Balancer], Awaitable[None]]) -> list[Counter[str]]:
    """The sum of the counts of all connections, for each kind of work."""

    async def begin(work: Callable[[Balancer], Awaitable[None]], balancer: Balancer) -> None:
        await asyncio.sleep(_BALANCER_S * random.random())  # noqa: S311  # not all at once
        await work(balancer)

    async def over_all(work: Callable[[Balancer], Awaitable[None]]) -> Counter[str]:
        balancers = [Balancer(port, idle_s) for _ in range(_CONNECTIONS)]
        await asyncio.gather(*(begin(work, each) for each in balancers))
        for each in balancers:
            each.close()
        return sum((each.counts for each in balancers), Counter())

    return await asyncio.gather(*map(over_all, works))


async def pause() -> None:
    """About as long as the balancer keeps a connection."""
    await asyncio.sleep(_BALANCER_S * random.uniform(0.8, 1.2))  # noqa: S311


async def send_around_the_limit(balancer: Balancer) -> None:
    for _ in range(_ROUNDS):
        await balancer.send()
        await pause()


async def open_ahead_of_the_request(balancer: Balancer) -> None:
    for _ in range(_ROUNDS):
        await balancer.open()
        await pause()
        await balancer.send()
        balancer.close()


async def send_after_a_rejection(balancer: Balancer) -> None:
    for _ in range(_ROUNDS):
        await balancer.send(body_behind=b"late")
        await pause()


def start(tmp_path: Path, *arguments: str, **variables: str) -> AbstractContextManager[Transformer]:
    (closed_port,) = find_free_ports(1)
    return start_transformer(f"127.0.0.1:{closed_port}", tmp_path / "log", *arguments, variables=variables)


def test_no_request_is_lost_where_connections_outlive_the_balancer(tmp_path: Path) -> None:
    # The time limit for a head is shorter: it does not apply to a connection without a request.
    variables = {"TRANSFORMER_KEEP_ALIVE_S": str(_LONGER_S), "TRANSFORMER_BODY_TIMEOUT_S": "0.5"}
    works = (send_around_the_limit, open_ahead_of_the_request, send_after_a_rejection)
    with start(tmp_path, **variables) as transformer:
        for work, counts in zip(works, asyncio.run(balance(transformer.http_port, _BALANCER_S, *works)), strict=True):
            assert counts["sent"] == _CONNECTIONS * _ROUNDS, work
            assert counts["reused"] > counts["sent"] / 4, "the pauses were too long"
            assert (counts["lost"], counts["closing"]) == (0, 0), work


def test_requests_are_lost_where_the_balancer_keeps_connections_longer(tmp_path: Path) -> None:
    """The failure that the test above would see; and KServe's option overrides the setting."""
    variables = {"TRANSFORMER_KEEP_ALIVE_S": "60"}
    with start(tmp_path, f"--timeout-keep-alive={_BALANCER_S:g}", **variables) as transformer:
        (counts,) = asyncio.run(balance(transformer.http_port, _LONGER_S, send_around_the_limit))
    assert counts["lost"] > _CONNECTIONS


def test_no_request_is_lost_over_open_connections_at_shutdown(tmp_path: Path) -> None:
    with start(tmp_path) as transformer:

        async def send_until_it_ends(balancer: Balancer) -> None:
            while not balancer.counts["closing"] + balancer.counts["lost"]:
                await balancer.send()
                await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311

        async def stop_meanwhile() -> list[Counter[str]]:
            loop = asyncio.get_running_loop()
            loop.call_later(2 * _BALANCER_S, transformer.process.send_signal, signal.SIGTERM)
            return await balance(transformer.http_port, 60, send_until_it_ends)

        (counts,) = asyncio.run(stop_meanwhile())
        assert (counts["lost"], counts["closing"]) == (0, _CONNECTIONS)
        assert counts["reused"] > _CONNECTIONS
        started = time.monotonic()
        assert transformer.process.wait(60) == 0
        assert time.monotonic() - started < 10
