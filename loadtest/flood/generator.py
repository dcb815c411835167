"""An open loop of requests over HTTP: `python -m loadtest.flood.generator < plan.json`, a light process of its own.

Requests begin when it is their time, whether earlier ones are answered or not. Bytes in, bytes out: nothing is parsed
but the status and the length, so that the generator takes little of the cores that it shares with the server.
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from environment import api_key


@dataclass(frozen=True)
class Plan:
    """What is asked, and how often.

    Attributes:
        host, port: to connect to.
        authority: of the server, as requests name it.
        path: of the question.
        body: file with the question.
        content_type: of it.
        rate: requests that begin in a second.
        seconds: how long.
        timeout_s: of one request.
        connections: at most; a request that finds all of them taken counts as failed.
    """

    host: str
    port: int
    authority: str
    path: str
    body: str
    content_type: str
    rate: float
    seconds: float
    timeout_s: float
    connections: int = 1000


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        statuses, latencies_ms, ended_s: of each request; status 0 where no answer came.
        cpu_s: of the generator.
        seconds: it ran.
    """

    statuses: list[int]
    latencies_ms: list[float]
    ended_s: list[float]
    cpu_s: float
    seconds: float


class Generator:
    """Begins requests when it is their time, over connections that are kept."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        body = Path(plan.body).read_bytes()
        head = (
            f"POST {plan.path} HTTP/1.1\r\nHost: {plan.authority}\r\nContent-Type: {plan.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in api_key.headers().items())
            + "\r\n"
        )
        self.message = head.encode() + body
        self._idle: list[Connection] = []
        self._open = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._started = 0.0
        self._begun = 0
        self._over = asyncio.Event()
        self.outcome = Outcome([], [], [], 0.0, 0.0)

    async def run(self) -> None:
        """Begin all requests, and wait for all answers."""
        self._started = time.perf_counter()
        self._begin_due()
        await self._over.wait()
        self.outcome.seconds = time.perf_counter() - self._started
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.outcome.cpu_s = usage.ru_utime + usage.ru_stime

    def ended(self, status: int, began: float) -> None:
        """A request has its answer, or will have none (0)."""
        now = time.perf_counter()
        self.outcome.statuses.append(status)
        self.outcome.latencies_ms.append((now - began) * 1000)
        self.outcome.ended_s.append(now - self._started)
        if len(self.outcome.statuses) == self._count:
            self._over.set()

    def free(self, connection: "Connection") -> None:
        """A connection can take a request."""
        self._idle.append(connection)

    def closed(self, connection: "Connection") -> None:
        """A connection is gone."""
        self._open -= 1
        if connection in self._idle:  # the server closes what nobody uses
            self._idle.remove(connection)

    @property
    def _count(self) -> int:
        return int(self._plan.rate * self._plan.seconds)

    def _begin_due(self) -> None:
        """Begin what is due, and come again for the next; a callback costs less than a task that sleeps."""
        while self._begun < self._count:
            pause = self._started + self._begun / self._plan.rate - time.perf_counter()
            if pause > 0:
                asyncio.get_running_loop().call_later(pause, self._begin_due)
                return
            self._begun += 1
            self._begin()

    def _begin(self) -> None:
        began = time.perf_counter()
        if self._idle:
            self._idle.pop().ask(began, self._plan.timeout_s)
        elif self._open < self._plan.connections:
            self._open += 1
            task = asyncio.create_task(self._connect(began))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.ended(0, began)

    async def _connect(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._plan.timeout_s):
                _, connection = await loop.create_connection(lambda: Connection(self), self._plan.host, self._plan.port)
        except (OSError, TimeoutError):
            self._open -= 1
            self.ended(0, began)
        else:
            connection.ask(began, self._plan.timeout_s)


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = b""
        self._began: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol."""
        self._transport = transport

    def ask(self, began: float, timeout_s: float) -> None:
        """Send the question; its time has begun already."""
        if self._transport.is_closing():
            self._generator.ended(0, began)
            return
        self._received, self._began = b"", began
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._transport.abort)
        self._transport.write(self._generator.message)

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol: a piece of an answer."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower()
        _, _, length = fields.partition(b"\r\ncontent-length:")
        if len(body) < int(length.partition(b"\r\n")[0] or 0):
            return
        self._answered(int(fields.split(b" ", 2)[1]))
        if b"\r\nconnection: close" in fields:
            self._transport.close()
        else:
            self._generator.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        """asyncio.Protocol."""
        self._answered(0)
        self._generator.closed(self)

    def _answered(self, status: int) -> None:
        if self._began is None:
            return
        assert self._timer is not None, "set with it"  # noqa: S101
        self._timer.cancel()
        began, self._began = self._began, None
        self._generator.ended(status, began)


def main() -> None:
    """Read the plan from standard input, and write what became of it to standard output."""
    plan = Plan(**json.load(sys.stdin))
    generator = Generator(plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(generator.run())
    json.dump(asdict(generator.outcome), sys.stdout)


def read_outcome(text: str) -> Outcome:
    """What `main` has written."""
    values: dict[str, Any] = json.loads(text)
    return Outcome(**values)


if __name__ == "__main__":
    main()
