"""The first responses after silence, in numbers. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.latency.samples import Sample, percentiles

FIRST = 10


@dataclass(frozen=True)
class Burst:
    """The result of a burst.

    Attributes:
        requests, failures: of it.
        first_response_s: from its first request to its first successful response; None where none came.
        first_ms: latencies of its first successful responses, in their order.
        steady_p50_ms: median of the successful responses after those; NaN where there are none.
    """

    requests: int
    failures: int
    first_response_s: float | None
    first_ms: Sequence[float]
    steady_p50_ms: float


def bursts(samples: Sequence[Sample], began: Sequence[float]) -> list[Burst]:
    """Samples of each of the bursts that began at these moments."""
    ends = [*began[1:], float("inf")]
    return [
        _burst([sample for sample in samples if since <= sample.started < until])
        for since, until in zip(began, ends, strict=True)
    ]


def _burst(samples: Sequence[Sample]) -> Burst:
    successful = sorted((sample for sample in samples if not sample.error), key=lambda sample: sample.ended)
    times_ms = [sample.seconds * 1000 for sample in successful]
    first_s = successful[0].ended - min(sample.started for sample in samples) if successful else None
    (steady,) = percentiles(times_ms[FIRST:], (50,))
    return Burst(len(samples), len(samples) - len(successful), first_s, times_ms[:FIRST], steady)
