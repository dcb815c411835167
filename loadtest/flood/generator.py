"""An open loop of requests over HTTP: `python -m loadtest.flood.generator < plan.json`, a light process of its own.

Requests begin when it is their time, whether earlier ones are answered or not. Bytes in, bytes out: nothing is parsed
but the status and the length, so that the generator takes little of the cores that it shares with the server.
"""

import asyncio
import json
import resource
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

_NEWLINE = b"\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Plan:
    """What is asked, and how often.

    Attributes:
        host, port: of the server.
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
    """Connections that are kept, and requests over them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        with open(plan.body, "rb") as file:  # noqa: PTH123 - before the loop starts
            body = file.read()
        head = (
            f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}\r\nContent-Type: {plan.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._message = head.encode() + body
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._open = 0
        self.outcome = Outcome([], [], [], 0.0, 0.0)

    async def run(self) -> None:
        """Begin all requests, and wait for all answers."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(self._plan.rate * self._plan.seconds)):
                pause = started + number / self._plan.rate - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
                group.create_task(self._ask(started))
        self.outcome.seconds = time.perf_counter() - started
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.outcome.cpu_s = usage.ru_utime + usage.ru_stime
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, epoch: float) -> None:
        began = time.perf_counter()
        status = 0
        try:
            async with asyncio.timeout(self._plan.timeout_s):
                status = await self._exchange()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass
        ended = time.perf_counter()
        self.outcome.statuses.append(status)
        self.outcome.latencies_ms.append((ended - began) * 1000)
        self.outcome.ended_s.append(ended - epoch)

    async def _exchange(self) -> int:
        """Send the question, and read the status of its answer."""
        while self._idle and self._idle[-1][0].at_eof():  # the server closes what nobody uses
            self._open -= 1
            self._idle.pop()[1].close()
        if self._idle:
            reader, writer = self._idle.pop()
        elif self._open < self._plan.connections:
            self._open += 1
            try:
                reader, writer = await asyncio.open_connection(self._plan.host, self._plan.port)
            except OSError:
                self._open -= 1
                raise
        else:
            raise OSError("no connection left")
        kept = False
        try:
            writer.write(self._message)
            await writer.drain()
            head = await reader.readuntil(_NEWLINE * 2)
            status = int(head.split(b" ", 2)[1])
            fields = head.lower().split(_NEWLINE)
            length = next((int(field.split(b":")[1]) for field in fields if field.startswith(_LENGTH)), 0)
            await reader.readexactly(length)
            kept = b"connection: close" not in fields
            return status
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                self._open -= 1
                writer.close()


def main() -> None:
    """Read the plan from standard input, and write what became of it to standard output."""
    plan = Plan(**json.load(sys.stdin))
    generator = Generator(plan)
    asyncio.run(generator.run())
    json.dump(asdict(generator.outcome), sys.stdout)


def read_outcome(text: str) -> Outcome:
    """What `main` has written."""
    values: dict[str, Any] = json.loads(text)
    return Outcome(**values)


if __name__ == "__main__":
    main()
