"""A running server beside the simulation of it: one pod, requests that arrive independently of each other."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.flood import Target
from loadtest.growth.queueing import Pod, poisson, simulate

_UTILISATIONS = (0.5, 0.7, 0.85)
_WARM_UP_S = 1.0
_SIMULATED = 20_000  # requests
_QUANTILES = 10
_PERCENTS = (50, 95, 99)
_REJECTED = "429"
_SEED = 21


@dataclass(frozen=True)
class _Turn:
    pod: Pod
    measured: list[float]
    simulated: list[float]


@dataclass(frozen=True)
class Row:
    """One utilisation; p50, p95, p99 in ms and the share of 429.

    Attributes:
        utilisation: rate over the capacity that was measured just before.
        capacity, latency_ms: of the server, which alone it has; medians over the turns, as the rest.
        measured, simulated: the figures.
    """

    utilisation: float
    capacity: float
    latency_ms: float
    measured: Sequence[float]
    simulated: Sequence[float]

    @classmethod
    def of(cls, utilisation: float, turns: Sequence[_Turn]) -> "Row":
        """Medians over turns."""
        return cls(
            utilisation,
            statistics.median(turn.pod.capacity for turn in turns),
            statistics.median(1000 / turn.pod.speeds[0] for turn in turns),
            _medians([turn.measured for turn in turns]),
            _medians([turn.simulated for turn in turns]),
        )


def _medians(turns: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(figures) for figures in zip(*turns, strict=True)]


def read_pod(target: Target, *, slots: int, room: int, seconds: float) -> Pod:
    """What the simulation takes a server for, by what it does now.

    Args:
        target: the server.
        slots: requests that it has in progress, at most.
        room: in progress and queued.
        seconds: of each measurement.

    Raises:
        LoadTestError: a request failed.
    """
    taken = {}
    for connections in sorted({1, 2, 4, slots}):
        taken[connections] = target.measure(seconds, connections=connections).result
        if failures := taken[connections].failures:
            raise LoadTestError(failures[0].error)
    speeds = {connections: result.per_second for connections, result in taken.items()}
    times_s = [response.seconds for response in taken[1].successes]
    shape = np.quantile(times_s, np.linspace(0, 1, _QUANTILES + 1))
    return Pod.measured(speeds, slots=slots, room=room, shape=shape.tolist())


def take(target: Target, rate: float, seconds: float) -> list[float]:
    """p50, p95, p99 in ms of accepted requests that arrive independently, and the share that was rejected.

    Raises:
        LoadTestError: a request failed otherwise.
    """
    outcome = target.measure(_WARM_UP_S + seconds, rate=rate, poisson=True)
    counted = outcome.result.between(outcome.began + _WARM_UP_S, outcome.began + _WARM_UP_S + seconds)
    other = next((each.error for each in counted.failures if each.status != _REJECTED), "")
    if other or not counted.successes:
        raise LoadTestError(other or f"no response in {seconds:g} s; next: more --seconds")
    times_ms = [response.seconds * 1000 for response in counted.successes]
    return [*map(float, np.percentile(times_ms, _PERCENTS)), len(counted.failures) / len(counted.responses)]


def compare(target: Target, *, slots: int, room: int, seconds: float, turns: int) -> list[Row]:
    """Measure a server and simulate it, in turns; each turn by what the server could do just before it."""
    taken: dict[float, list[_Turn]] = {each: [] for each in _UTILISATIONS}
    for _ in range(turns):
        for utilisation, found in taken.items():
            pod = read_pod(target, slots=slots, room=room, seconds=seconds)
            rate = utilisation * pod.capacity
            found.append(_Turn(pod, take(target, rate, 2 * seconds), _simulate(pod, rate)))
    return [Row.of(utilisation, found) for utilisation, found in taken.items()]


def _simulate(pod: Pod, rate: float) -> list[float]:
    random = np.random.default_rng(_SEED)
    arrivals = poisson(random, [(_SIMULATED / rate, rate)])
    return [*simulate(pod, arrivals, pods=1, random=random, since_s=_WARM_UP_S).figures]
