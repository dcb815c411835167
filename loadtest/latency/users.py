"""Locust's users, one class for each kind of request, in a closed or an open loop."""

import itertools
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Never

import gevent
from gevent.pool import Group
from locust import LoadTestShape, User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.latency.payloads import FAILURES, KINDS, Connection, RequestError, Target, read_timing
from loadtest.latency.samples import Sample, Window

_AFTER_FAILURE_S = 0.05  # otherwise a server that is away would get requests in a tight loop
_YIELD_EVERY = 50  # arrivals, where the schedule is late: other greenlets must run


class LoadEnvironment(Environment):
    """Locust's environment, and what the users share.

    Attributes:
        target: where requests go.
        window: that is measured.
        arrivals: in an open loop, requests/s of each kind, its phase from 0 to 1, its largest number of connections.
        started: when the users begin.
        samples: all requests, in the order of their ends.
        numbers: one for each user.
    """

    def __init__(
        self,
        target: Target,
        weights: Mapping[str, int],
        *,
        rate: float | None = None,
        connections: int = 1,
        shape: "ScaleToZero | None" = None,
    ) -> None:
        super().__init__(
            user_classes=[_user_class(kind, weight, one=rate is not None) for kind, weight in weights.items()],
            host=target.url,
            stop_timeout=target.timeout_s + 5,
            shape_class=shape,
        )
        self.target = target
        self.window = Window()
        self.started = 0.0
        self.samples: list[Sample] = []
        self.numbers = itertools.count()
        self.requests = {kind: KINDS[kind].encode(target) for kind in weights}
        self.arrivals = {} if rate is None else _split_rate(weights, rate, connections)

    def begin(self, warm_up_s: float, duration_s: float) -> None:
        """Begin now; without this, there is no warm-up and no end."""
        self.started = time.monotonic()
        self.window = Window(self.started + warm_up_s, self.started + warm_up_s + duration_s)

    def record(self, sample: Sample) -> None:
        """Keep a sample; Locust gets only those that are measured."""
        self.samples.append(sample)
        if self.window.holds(sample.started):
            self.events.request.fire(
                request_type=KINDS[sample.kind].protocol,
                name=sample.kind,
                response_time=sample.seconds * 1000,
                response_length=0,
                exception=sample.error or None,
                context={},
            )


class KindUser(User):
    """A user that sends one kind of request.

    Attributes:
        kind: of `payloads.KINDS`.
    """

    abstract = True
    kind: ClassVar[str]
    environment: LoadEnvironment

    def on_start(self) -> None:
        """Begin with another request than the user before."""
        requests = self.environment.requests[self.kind]
        begin = next(self.environment.numbers) % len(requests)
        self._requests = itertools.islice(itertools.cycle(requests), begin, None)
        self._idle: list[Connection] = []
        self._due: deque[float] = deque()
        self._workers = Group()

    def on_stop(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()

    @task
    def work(self) -> None:
        """Send one request; in an open loop, send on schedule until its end."""
        if self.kind in self.environment.arrivals:
            self._arrive()
        elif self._send(time.monotonic()).error:
            gevent.sleep(_AFTER_FAILURE_S)

    def _send(self, started: float) -> Sample:
        timing: Mapping[str, float] = {}
        error = ""
        kind = KINDS[self.kind]
        connection = self._idle.pop() if self._idle else kind.connect(self.environment.target)
        try:
            request = next(self._requests)
            timing = read_timing(request, connection.send(request))
        except RequestError as exc:
            error = str(exc)
        except FAILURES as exc:
            error = f"{type(exc).__name__}: {exc}"
        finally:
            # The connection used last is used next: only as many as the load needs are kept busy.
            self._idle.append(connection)
        sample = Sample(self.kind, started, time.monotonic() - started, error, timing)
        self.environment.record(sample)
        return sample

    def _arrive(self) -> Never:
        """Requests at a constant rate, whatever becomes of them.

        A request that finds no free connection waits in the client. Its latency counts from when it was due, so that
        a stall of the server delays all requests that were due in it (G. Tene, "coordinated omission").
        """
        environment = self.environment
        rate, offset, connections = environment.arrivals[self.kind]
        for number in itertools.count():
            due = environment.started + (number + offset) / rate
            if due >= environment.window.until:
                break
            if (pause := due - time.monotonic()) > 0:
                gevent.sleep(pause)
            elif number % _YIELD_EVERY == 0:
                gevent.sleep(0)
            self._due.append(due)
            if len(self._workers) < connections:
                self._workers.spawn(self._serve)
        gevent.sleep(max(0, environment.window.until - time.monotonic()))
        self._fail_unsent(f"not sent: all {connections} connections were busy until the end")
        self._workers.join(timeout=environment.target.timeout_s)
        raise StopUser

    def _fail_unsent(self, error: str) -> None:
        unsent = list(self._due)
        self._due.clear()
        for due in unsent:
            self.environment.record(Sample(self.kind, due, time.monotonic() - due, error))

    def _serve(self) -> None:
        while self._due:
            self._send(self._due.popleft())


def _split_rate(weights: Mapping[str, int], rate: float, connections: int) -> dict[str, tuple[float, float, int]]:
    """Share of the rate, of the time between two arrivals (kinds must not arrive together), and of the connections."""
    total = sum(weights.values())
    return {
        kind: (rate * weight / total, index / len(weights), max(1, connections * weight // total))
        for index, (kind, weight) in enumerate(weights.items())
    }


def _user_class(kind: str, weight: int, *, one: bool) -> type[User]:
    attributes: dict[str, Any] = {"kind": kind, "weight": weight, "fixed_count": int(one), "abstract": False}
    return type(f"{kind.capitalize()}User", (KindUser,), attributes)


class ScaleToZero(LoadTestShape):
    """Silence, burst, silence, burst, ...

    Silence begins with the last response; a burst ends some time after its first successful response.

    Attributes:
        began: when each burst began.
    """

    def __init__(self, *, users: int, silence_s: float, burst_s: float, cycles: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._users, self._silence_s, self._burst_s, self._cycles = users, silence_s, burst_s, cycles
        self._silent_since: float | None = time.monotonic()
        self.began: list[float] = []

    def tick(self) -> tuple[int, float] | None:
        """Users that there should be now; None at the end."""
        assert self.runner is not None  # noqa: S101
        environment = self.runner.environment
        assert isinstance(environment, LoadEnvironment)  # noqa: S101
        now, samples = time.monotonic(), environment.samples
        if self._silent_since is not None:
            last = samples[-1].ended if samples else self._silent_since
            if self.runner.user_count or now - max(last, self._silent_since) < self._silence_s:
                return 0, self._users
            self._silent_since = None
            self.began.append(now)
            return self._users, self._users
        successes = (sample.ended for sample in samples if not sample.error and sample.started >= self.began[-1])
        if now < next(successes, self.began[-1] + environment.target.timeout_s) + self._burst_s:
            return self._users, self._users
        if len(self.began) == self._cycles:
            return None
        self._silent_since = now
        return 0, self._users
