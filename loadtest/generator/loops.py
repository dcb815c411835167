"""Closed and open loops of requests."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

import uvloop

from loadtest.generator.connections import Client
from loadtest.generator.requests import Request
from loadtest.generator.responses import Response, Result

_AFTER_FAILURE_S = 0.05  # otherwise a server that is away would get requests in a tight loop
_SUCCESS = {"200", "OK"}
_SHOWN_BYTES = 300  # of an error
_SEED = 21

Record = Callable[[Response], None]


@dataclass(frozen=True)
class Schedule:
    """Where requests go, and when.

    Attributes:
        http, grpc: host:port.
        connections: of each protocol. Closed loop: so many requests are in progress at a time. Open loop: at most.
        rate: open loop: requests that begin each second, whatever becomes of earlier ones; None: closed loop.
        poisson: open loop: they begin independently of each other, as many on average; otherwise at equal intervals.
        pause_s: closed loop: of each connection after a response.
        timeout_s: for one request.
        limit_s: no request begins after this.
    """

    http: str
    grpc: str
    _: KW_ONLY
    connections: int = 4
    rate: float | None = None
    poisson: bool = False
    pause_s: float = 0.0
    timeout_s: float = 10.0
    limit_s: float = 3600.0


@dataclass(frozen=True)
class Outcome:
    """The result of a schedule.

    Attributes:
        result: every response.
        began: `time.monotonic()`.
        seconds: until the last response.
        cpu_s: of this process.
    """

    result: Result
    began: float
    seconds: float
    cpu_s: float


def measure(requests: Sequence[Request], schedule: Schedule) -> Outcome:
    """Send requests from this process, and wait for the last response."""

    async def run() -> Outcome:
        responses: list[Response] = []
        cpu_s = time.process_time()
        began = await generate(requests, schedule, responses.append)
        return Outcome(Result(responses), began, time.monotonic() - began, time.process_time() - cpu_s)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def generate(
    requests: Sequence[Request], schedule: Schedule, record: Record, stopped: asyncio.Event | None = None
) -> float:
    """Send requests until the schedule ends or `stopped` is set, and wait for the last response.

    Returns:
        When the schedule began, of `time.monotonic()`.
    """
    loop = _Loop(requests, schedule, record, stopped or asyncio.Event(), time.monotonic())
    try:
        await (loop.closed() if schedule.rate is None else loop.open())
    finally:
        for client in loop.clients:
            await client.close()
    return loop.began


@dataclass(frozen=True)
class _Loop:
    requests: Sequence[Request]
    schedule: Schedule
    record: Record
    stopped: asyncio.Event
    began: float
    clients: list[Client] = field(default_factory=list)

    async def closed(self) -> None:
        end = self.began + self.schedule.limit_s

        async def repeat(number: int) -> None:
            # Connections begin at different requests, so that all kinds are in progress at any moment.
            for request in itertools.islice(itertools.cycle(self.requests), number % len(self.requests), None):
                response = await _exchange(self.clients[number], number, request, time.monotonic())
                self.record(response)
                pause_s = self.schedule.pause_s
                if pause_s := max(pause_s, _AFTER_FAILURE_S) if response.error else pause_s:
                    await asyncio.sleep(pause_s)
                if self.stopped.is_set() or response.ended >= end:
                    return

        for _ in range(self.schedule.connections):
            self._connect()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.schedule.connections):
                tasks.create_task(repeat(number))

    async def open(self) -> None:
        idle: list[int] = []

        async def serve(number: int, request: Request, due: float) -> None:
            self.record(await _exchange(self.clients[number], number, request, due))
            idle.append(number)  # the last one used is the next: as few connections as possible are kept busy

        rate = self.schedule.rate or 0.0
        async with asyncio.TaskGroup() as tasks:
            for offset_s, request in zip(_offsets(self.schedule, rate), itertools.cycle(self.requests)):
                due = self.began + offset_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self.stopped.is_set():
                    return
                if not idle and len(self.clients) == self.schedule.connections:
                    error = f"not sent: all {self.schedule.connections} connections were busy"
                    self.record(Response(-1, request.kind, due, time.monotonic() - due, "", error))
                    continue
                if not idle:
                    self._connect()
                number = idle.pop() if idle else len(self.clients) - 1
                tasks.create_task(serve(number, request, due))

    def _connect(self) -> None:
        self.clients.append(Client(self.schedule.http, self.schedule.grpc, self.schedule.timeout_s))


def _offsets(schedule: Schedule, rate: float) -> Iterator[float]:
    """When each request of an open loop begins, s."""
    if not schedule.poisson:
        yield from (index / rate for index in range(int(rate * schedule.limit_s)))
        return
    chance, offset_s = random.Random(_SEED), 0.0  # noqa: S311 - no secret
    while (offset_s := offset_s + chance.expovariate(rate)) < schedule.limit_s:
        yield offset_s


async def _exchange(client: Client, number: int, request: Request, started: float) -> Response:
    inference = None
    try:
        status, body = await client.send(request)
        error = "" if status in _SUCCESS else f"{status} {body[:_SHOWN_BYTES].decode(errors='replace')}"
        if not error and len(body) < request.min_bytes:
            error = f"got {len(body)} bytes, expected at least {request.min_bytes}"
        if not error and request.read:
            inference = request.read(body)
    except (OSError, ValueError, LookupError) as exc:
        status, error = "", f"{type(exc).__name__}: {exc}"
    seconds = time.monotonic() - started
    if inference is None:
        return Response(number, request.kind, started, seconds, status, error)
    predictions = inference.document["predictions"]
    top = predictions[0] if predictions else {}
    labels = top.get("probabilities") or [prediction.get("class", "") for prediction in predictions]
    return Response(
        number, request.kind, started, seconds, status, "",
        inference.version, top.get("class", ""), top.get("confidence", 0.0), tuple(labels),
    )  # fmt: skip
