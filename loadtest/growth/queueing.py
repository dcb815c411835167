"""Requests that wait for pods: a simulation, and the closed forms that it is verified with. No server is involved.

A pod is a queue for a few servers (what it does at once at its capacity), and a delay behind them that does not wait: a
request alone takes longer than the reciprocal of the capacity, because its stages overlap with those of others.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Latency of one request after another over its mean, by quantile: SHAPE[i] at i / (len(SHAPE) - 1). `digit-finder` in
# fp32 on two cores of an AMD EPYC with AVX2 that other work shared, 27 November 2026.
SHAPE = (0.80, 0.88, 0.91, 0.94, 0.96, 0.98, 1.00, 1.02, 1.06, 1.15, 1.80)
BALANCERS = ("random", "round robin", "least of two")  # kube-proxy; an ALB or nginx; Envoy


@dataclass(frozen=True)
class Pod:
    """One replica.

    Attributes:
        servers: requests that it computes at once.
        service_s: mean time that a request keeps one of them.
        delay_s: time that a request takes beside that, without keeping others waiting.
        room: requests in progress and in its queue; one more is rejected (429).
        shape: quantiles of the service time over its mean; empty: exponential.
    """

    servers: int
    service_s: float
    delay_s: float = 0.0
    room: int = 10**9
    shape: Sequence[float] = SHAPE

    @classmethod
    def of(cls, capacity: float, latency_s: float, *, room: int, shape: Sequence[float] = SHAPE) -> "Pod":
        """A pod by what can be measured.

        By Little's law so many requests are in it at its capacity: capacity times latency, rounded down to servers.

        Args:
            capacity: requests/s under full load.
            latency_s: mean of one request after another.
            room: in progress and queued.
            shape: of the latencies.
        """
        servers = max(1, math.floor(capacity * latency_s))
        service_s = servers / capacity
        return cls(servers, service_s, max(0.0, latency_s - service_s), room, shape)

    @property
    def capacity(self) -> float:
        """Requests/s under full load."""
        return self.servers / self.service_s

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """Service times of so many requests, s."""
        if not len(self.shape):
            return random.exponential(self.service_s, count)
        shape = np.asarray(self.shape, np.float64)
        mean = np.trapezoid(shape, dx=1 / (len(shape) - 1))
        drawn = np.interp(random.random(count), np.linspace(0, 1, len(shape)), shape)
        return np.asarray(drawn * (self.service_s / mean), np.float64)


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
    balancer: str = "random",
    random: np.random.Generator,
    since_s: float = 0.0,
) -> Outcome:
    """Send each request to one of the pods, first come, first served.

    Args:
        pod: what each of them is.
        arrivals: moments in ascending order, s.
        pods: how many there are.
        balancer: one of `BALANCERS`.
        random: where chance is from.
        since_s: what arrives earlier fills the pods and is not counted.
    """
    free = [[0.0] * pod.servers for _ in range(pods)]  # heaps: when each server has ended what waits for it
    inside = [0] * pods
    ends: list[tuple[float, int]] = []  # a heap: when a request leaves which pod
    services = pod.draw(random, len(arrivals))
    choices = random.random((len(arrivals), 2))
    latencies, rejected, counted = [], 0, 0
    for index, (now, service) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        while ends and ends[0][0] <= now:
            inside[heapq.heappop(ends)[1]] -= 1
        chosen = index % pods if balancer == "round robin" else int(choices[index, 0] * pods)
        if balancer == "least of two":
            chosen = min(chosen, int(choices[index, 1] * pods), key=inside.__getitem__)
        counted += now >= since_s
        if inside[chosen] >= pod.room:
            rejected += now >= since_s
            continue
        end = max(now, free[chosen][0]) + service
        heapq.heapreplace(free[chosen], end)
        heapq.heappush(ends, (end + pod.delay_s, chosen))
        inside[chosen] += 1
        if now >= since_s:
            latencies.append(end + pod.delay_s - now)
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
