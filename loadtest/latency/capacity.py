"""The highest rate that a server takes, and what follows from it for an autoscaler. Pure arithmetic."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_NEAR = 1.08  # bisection ends where the rate that failed is at most so many times the one that held
_RPS_SHARE = 0.75  # of the capacity is the target: the rest carries what comes until a new replica is ready
_BURST = 2


@dataclass(frozen=True)
class Step:
    """What one rate gave.

    Attributes:
        rate: asked for, requests/s.
        answered_per_second: reached.
        mean_ms, p95_ms: latencies.
        missed: why it does not hold; empty where it does.
    """

    rate: float
    answered_per_second: float
    mean_ms: float
    p95_ms: float
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Scaling:
    """What to write in an InferenceService.

    Attributes:
        concurrency_target: `scaleTarget` with `scaleMetric: concurrency`.
        rps_target: `scaleTarget` with `scaleMetric: rps`.
        container_concurrency: `containerConcurrency`.
    """

    concurrency_target: int
    rps_target: int
    container_concurrency: int


def find(measure: Callable[[float], Step], start: float, *, lowest: float) -> Step | None:
    """The step with the highest rate that holds: doubling (halving where the first fails), then bisection.

    A step that fails is tried once more: one pause of the machine must not decide.

    Returns:
        None where no rate from `lowest` on holds.
    """

    def attempt(rate: float) -> Step:
        step = measure(rate)
        return measure(rate) if step.missed else step

    best, failed, rate = None, math.inf, start
    while best is None or failed > best.rate * _NEAR:
        step = attempt(rate)
        if step.missed:
            failed = min(failed, rate)
        else:
            best = step
        if best is None:
            rate = failed / 2
            if rate < lowest:
                return None
        else:
            rate = best.rate * 2 if failed == math.inf else (best.rate + failed) / 2
    return best


def scaling(knee: Step) -> Scaling:
    """Targets for an autoscaler from the highest rate that holds.

    Little's law (J. D. C. Little, 1961): rate times mean latency is how many requests are under way.
    """
    under_way = knee.answered_per_second * knee.mean_ms / 1000
    target = max(1, math.floor(under_way))
    return Scaling(target, max(1, math.floor(knee.answered_per_second * _RPS_SHARE)), max(2, _BURST * target))


def replicas(rate: float, scaling: Scaling) -> int:
    """How many replicas an autoscaler with the rps target keeps for a rate."""
    return max(1, math.ceil(rate / scaling.rps_target))
