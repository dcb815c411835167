"""Requests that wait for pods: a simulation, and the closed forms that it is verified with. No server is involved.

A pod is a server whose speed depends on how many requests it has in progress: as many as its slots share it, the others
queue in order. The speeds are throughputs of closed loops (a flow-equivalent server: K. M. Chandy, U. Herzog, L. Woo,
1975), so that batches, stages that overlap, and threads that hinder each other need no model of their own.
"""

import heapq
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BALANCERS = ("random", "round robin", "least of two")  # kube-proxy; an ALB or nginx; Envoy


@dataclass(frozen=True)
class Pod:
    """One replica.

    Attributes:
        speeds: requests/s with one in progress, with two, and so on; as many as it has slots.
        room: requests in progress and in its queue; one more is rejected (429).
        shape: quantiles of the work of a request, at equal distances; empty: exponential.
    """

    speeds: Sequence[float]
    room: int = 10**9
    shape: Sequence[float] = (1.0, 1.0)

    @classmethod
    def bounded(cls, capacity: float, latency_s: float, *, slots: int, room: int) -> "Pod":
        """A pod of which two figures are known: each request in progress adds what one alone gets, up to the capacity.

        Args:
            capacity: requests/s under full load.
            latency_s: mean of one request after another.
            slots: requests in progress, at most.
            room: in progress and queued.
        """
        return cls([min(count / latency_s, capacity) for count in range(1, slots + 1)], room)

    @classmethod
    def measured(cls, speeds: Mapping[int, float], *, slots: int, room: int, shape: Sequence[float]) -> "Pod":
        """A pod by closed loops: requests/s by number of connections, and between them in a straight line."""
        between = np.interp(range(1, slots + 1), sorted(speeds), [speeds[count] for count in sorted(speeds)])
        return cls(between.tolist(), room, shape)

    @property
    def capacity(self) -> float:
        """Requests/s under full load."""
        return self.speeds[-1]

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """The work of so many requests, 1 on average."""
        if not len(self.shape):
            return random.exponential(1.0, count)
        shape = np.asarray(self.shape, np.float64)
        mean = np.trapezoid(shape, dx=1 / (len(shape) - 1))
        drawn = np.interp(random.random(count), np.linspace(0, 1, len(shape)), shape)
        return np.asarray(drawn / mean, np.float64)


@dataclass(frozen=True)
class Outcome:
    """What became of the requests.

    Attributes:
        latencies_s: of those that were accepted.
        rejected: share of all.
    """

    latencies_s: Floats
    rejected: float

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """p50, p95 and p99 in ms, NaN where there are none, and the share that was rejected."""
        if not len(self.latencies_s):
            return math.nan, math.nan, math.nan, self.rejected
        p50, p95, p99 = (float(value) * 1000 for value in np.percentile(self.latencies_s, (50, 95, 99)))
        return p50, p95, p99, self.rejected


class _Replica:
    """A pod in the simulation. Those in progress get equal parts of its speed; `_shared` is what each got since 0 s."""

    def __init__(self, pod: Pod) -> None:
        self._speeds, self._room = pod.speeds, pod.room
        self._active: list[tuple[float, float]] = []  # a heap: of `_shared` when it ends, and when it arrived
        self._queue: deque[tuple[float, float]] = deque()  # work, and when it arrived
        self._shared, self._at_s = 0.0, 0.0

    @property
    def inside(self) -> int:
        return len(self._active) + len(self._queue)

    def accept(self, now: float, work: float) -> bool:
        """Take a request, or return False where there is no room."""
        if self.inside >= self._room:
            return False
        self._go_on(now)
        if len(self._active) < len(self._speeds):
            heapq.heappush(self._active, (self._shared + work, now))
        else:
            self._queue.append((work, now))
        return True

    def end(self, now: float) -> float:
        """End the request that is due; when it arrived."""
        self._go_on(now)
        _, arrived = heapq.heappop(self._active)
        if self._queue:
            work, since = self._queue.popleft()
            heapq.heappush(self._active, (self._shared + work, since))
        return arrived

    def next_end(self) -> float:
        """When the next request ends, if no other arrives; infinite where there is none."""
        if not self._active:
            return math.inf
        return self._at_s + (self._active[0][0] - self._shared) / self._speed()

    def _speed(self) -> float:
        return self._speeds[len(self._active) - 1] / len(self._active)

    def _go_on(self, now: float) -> None:
        if self._active:
            self._shared += (now - self._at_s) * self._speed()
        self._at_s = now


def poisson(random: np.random.Generator, pieces: Sequence[tuple[float, float]]) -> Floats:
    """Moments at which requests arrive, independently of each other, s.

    Args:
        random: where chance is from.
        pieces: one after another, seconds and requests/s.
    """
    moments, begin = [], 0.0
    for seconds, rate in pieces:
        moments.append(begin + np.sort(random.random(random.poisson(rate * seconds)) * seconds))
        begin += seconds
    return np.concatenate(moments)


def simulate(  # noqa: PLR0913 - each is a number of the experiment
    pod: Pod,
    arrivals: Floats,
    *,
    pods: int,
    random: np.random.Generator,
    balancer: str = "random",
    since_s: float = 0.0,
) -> Outcome:
    """Send each request to one of the pods.

    Args:
        pod: what each of them is.
        arrivals: moments in ascending order, s.
        pods: how many there are.
        random: where chance is from.
        balancer: one of `BALANCERS`.
        since_s: what arrives earlier fills the pods and is not counted.
    """
    replicas = [_Replica(pod) for _ in range(pods)]
    due: list[tuple[float, int]] = []  # a heap: when a request of a replica ends; what another one delayed stays in it
    works = pod.draw(random, len(arrivals)).tolist()
    choices = random.random((len(arrivals), 2))
    latencies, rejected = [], 0

    def end_until(moment: float) -> None:
        while due and due[0][0] <= moment:
            at_s, number = heapq.heappop(due)
            replica = replicas[number]
            if at_s != replica.next_end():
                continue
            arrived = replica.end(at_s)
            if arrived >= since_s:
                latencies.append(at_s - arrived)
            heapq.heappush(due, (replica.next_end(), number))

    for index, (now, work) in enumerate(zip(arrivals.tolist(), works, strict=True)):
        end_until(now)
        chosen = index % pods if balancer == "round robin" else int(choices[index, 0] * pods)
        if balancer == "least of two":
            chosen = min(chosen, int(choices[index, 1] * pods), key=lambda number: replicas[number].inside)
        if replicas[chosen].accept(now, work):
            heapq.heappush(due, (replicas[chosen].next_end(), chosen))
        else:
            rejected += now >= since_s
    end_until(sys.float_info.max)
    counted = len(latencies) + rejected
    return Outcome(np.array(latencies), rejected / counted if counted else 0.0)


def erlang_b(load: float, servers: int) -> float:
    """Share that is rejected where no request can wait (A. K. Erlang, 1917), by its recursion.

    Args:
        load: rate times mean service time.
        servers: how many.
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(load: float, servers: int) -> float:
    """Share of requests that wait in a queue without an end, with exponential service times (M/M/c).

    Args:
        load: rate times mean service time, less than `servers`.
        servers: how many.
    """
    blocked = erlang_b(load, servers)
    return servers * blocked / (servers - load * (1 - blocked))
