"""Locust's users, one class for each way to ask, in a closed or an open loop."""

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

from loadtest.latency.questions import FAILURES, KINDS, Connection, Target
from loadtest.latency.samples import Sample, Window

_AFTER_FAILURE_S = 0.05  # else a server that is away would be asked in a tight loop
_BREATH = 50  # arrivals after which others may run, where the schedule is behind


class LoadEnvironment(Environment):
    """Locust's environment, and what the users need.

    Attributes:
        target: what is asked.
        window: what counts.
        arrivals: in an open loop, requests/s of each class, its phase from 0 to 1, its connections at most.
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
        self.questions = {kind: KINDS[kind].questions(target) for kind in weights}
        # Shares of the rate, of the time between two arrivals, so that the classes don't arrive together, and of the
        # connections.
        total = sum(weights.values())
        self.arrivals = {
            kind: (rate * weight / total, index / len(weights), max(1, connections * weight // total))
            for index, (kind, weight) in enumerate(weights.items())
            if rate is not None
        }

    def begin(self, warm_up_s: float, duration_s: float) -> None:
        """The users begin now; without this, there is no warm-up and no end."""
        self.started = time.monotonic()
        self.window = Window(self.started + warm_up_s, self.started + warm_up_s + duration_s)

    def record(self, sample: Sample) -> None:
        """Keep a sample; Locust hears of those that count only."""
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


class Asker(User):
    """A user who asks in one way.

    Attributes:
        kind: of `questions.KINDS`.
    """

    abstract = True
    kind: ClassVar[str]
    environment: LoadEnvironment

    def on_start(self) -> None:
        """Begin at another question than the user before."""
        questions = self.environment.questions[self.kind]
        begin = next(self.environment.numbers) % len(questions)
        self._questions = itertools.islice(itertools.cycle(questions), begin, None)
        self._idle: list[Connection] = []
        self._due: deque[float] = deque()
        self._workers = Group()

    def on_stop(self) -> None:
        """Close what is open."""
        while self._idle:
            self._idle.pop().close()

    @task
    def work(self) -> None:
        """Ask once; in an open loop, ask on schedule until its end."""
        if self.kind in self.environment.arrivals:
            self._arrive()
        elif self._ask(time.monotonic()).error:
            gevent.sleep(_AFTER_FAILURE_S)

    def _ask(self, started: float) -> Sample:
        timing: Mapping[str, float] = {}
        error = ""
        kind = KINDS[self.kind]
        connection = self._idle.pop() if self._idle else kind.connect(self.environment.target)
        try:
            timing = kind.read(connection.ask(next(self._questions)))
        except FAILURES as exc:
            error = f"{type(exc).__name__}: {exc}"
        finally:
            # The last one used is the next: as few connections as the load needs are kept warm.
            self._idle.append(connection)
        sample = Sample(self.kind, started, time.monotonic() - started, error, timing)
        self.environment.record(sample)
        return sample

    def _arrive(self) -> Never:
        """Requests at a constant rate, whatever becomes of them.

        One that finds no free connection waits in the client; its latency counts from when it was due, so that a
        stall of the server is seen by all who would have come in it (G. Tene's "coordinated omission").
        """
        environment = self.environment
        rate, offset, connections = environment.arrivals[self.kind]
        for number in itertools.count():
            due = environment.started + (number + offset) / rate
            if due >= environment.window.until:
                break
            if (pause := due - time.monotonic()) > 0:
                gevent.sleep(pause)
            elif number % _BREATH == 0:
                gevent.sleep(0)
            self._due.append(due)
            if len(self._workers) < connections:
                self._workers.spawn(self._serve)
        gevent.sleep(max(0, environment.window.until - time.monotonic()))
        unsent = list(self._due)
        self._due.clear()
        for due in unsent:
            words = f"not sent: all {connections} connections were busy until the end"
            environment.record(Sample(self.kind, due, time.monotonic() - due, words))
        self._workers.join(timeout=environment.target.timeout_s)
        raise StopUser

    def _serve(self) -> None:
        while self._due:
            self._ask(self._due.popleft())


def _user_class(kind: str, weight: int, *, one: bool) -> type[User]:
    attributes: dict[str, Any] = {"kind": kind, "weight": weight, "fixed_count": int(one), "abstract": False}
    return type(f"{kind.capitalize()}User", (Asker,), attributes)


class ScaleToZero(LoadTestShape):
    """Silence, burst, silence, burst, ...

    Silence lasts from the last answer, a burst until some time after its first good answer.

    Attributes:
        began: when each burst began.
    """

    def __init__(self, *, users: int, silence_s: float, burst_s: float, cycles: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._users, self._silence_s, self._burst_s, self._cycles = users, silence_s, burst_s, cycles
        self._silent_since: float | None = time.monotonic()
        self.began: list[float] = []

    def tick(self) -> tuple[int, float] | None:
        """How many users there should be now; None at the end."""
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
        good = (sample.ended for sample in samples if not sample.error and sample.started >= self.began[-1])
        if now < next(good, self.began[-1] + environment.target.timeout_s) + self._burst_s:
            return self._users, self._users
        if len(self.began) == self._cycles:
            return None
        self._silent_since = now
        return 0, self._users
