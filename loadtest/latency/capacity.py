"""The highest rate that a server sustains, and what follows from it for an autoscaler. Pure arithmetic."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_NEAR = 1.08  # bisection ends where the rate that failed is at most this factor above the one that held
_RPS_SHARE = 0.75  # of the capacity is the target: the rest serves requests that arrive until a new replica is ready
_BURST = 2


@dataclass(frozen=True)
class Step:
    """The result of one rate.

    Attributes:
        rate: of the open loop, requests/s.
        responses_per_second: responses/s.
        mean_ms, p95_ms: latencies.
        missed: thresholds that it missed; empty where it holds.
    """

    rate: float
    responses_per_second: float
    mean_ms: float
    p95_ms: float
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Scaling:
    """Fields of an InferenceService.

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

    A step that fails is repeated once: one pause of the machine must not decide.

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

    Little's law (J. D. C. Little, 1961): rate times mean latency is how many requests are in progress.
    """
    in_progress = knee.responses_per_second * knee.mean_ms / 1000
    target = max(1, math.floor(in_progress))
    return Scaling(target, max(1, math.floor(knee.responses_per_second * _RPS_SHARE)), max(2, _BURST * target))


def replicas(rate: float, scaling: Scaling) -> int:
    """Replicas that an autoscaler with the rps target keeps for a rate."""
    return max(1, math.ceil(rate / scaling.rps_target))
