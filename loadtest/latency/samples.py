"""The measured requests, and the arithmetic on them. Nothing here opens a connection or imports Locust."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

STAGES = ("queue", "decode", "preprocess", "infer", "postprocess")
OUTSIDE = "outside"  # the stages of the server: transport, parsing, waiting for the event loop
REACHED = 0.95


class Sample(NamedTuple):
    """One request.

    Attributes:
        kind: one of `payloads.KINDS`.
        started: `time.monotonic()`: when it was sent; in an open loop when it was due.
        seconds: from then until the response was read.
        error: what went wrong; empty for a successful response.
        timing_ms: the split that the server reports; empty where the response has none.
    """

    kind: str
    started: float
    seconds: float
    error: str
    timing_ms: Mapping[str, float] = {}

    @property
    def ended(self) -> float:
        """When the response was read."""
        return self.started + self.seconds


@dataclass(frozen=True)
class Window:
    """A span of `time.monotonic()` that counts; requests that start before it are warm-up."""

    since: float = 0.0
    until: float = math.inf

    @property
    def seconds(self) -> float:
        """Length of the span."""
        return self.until - self.since

    def holds(self, moment: float) -> bool:
        """Whether a moment is in the span."""
        return self.since <= moment < self.until


@dataclass(frozen=True)
class Figures:
    """Samples in numbers; milliseconds of all requests, failed ones too, NaN where there are none.

    Attributes:
        requests: that started in the window.
        failures: of them.
        responses: responses that were read in the window, successful or not, whenever their request started.
        responses_per_second: the same per second.
        p50, p95, p99, longest, mean: of those that started in the window.
    """

    requests: int
    failures: int
    responses: int
    responses_per_second: float
    p50: float
    p95: float
    p99: float
    longest: float
    mean: float

    @property
    def fail_ratio(self) -> float:
        """Failures among all requests."""
        return self.failures / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Expected:
    """Thresholds of a run; None where there is none.

    Attributes:
        p95_ms: at most.
        fail_ratio: at most.
        rate: requests per second; a share of `REACHED` of them must get a response.
    """

    p95_ms: float | None = None
    fail_ratio: float | None = None
    rate: float | None = None


def summarize(samples: Sequence[Sample], window: Window) -> Figures:
    """Samples of a window in numbers."""
    started = [sample for sample in samples if window.holds(sample.started)]
    responses = sum(window.holds(sample.ended) for sample in samples)
    times_ms = np.array([sample.seconds * 1000 for sample in started])
    p50, p95, p99 = percentiles(times_ms, (50, 95, 99))
    return Figures(
        requests=len(started),
        failures=sum(bool(sample.error) for sample in started),
        responses=responses,
        responses_per_second=responses / window.seconds,
        p50=p50,
        p95=p95,
        p99=p99,
        longest=float(times_ms.max(initial=-math.inf)) if started else math.nan,
        mean=float(times_ms.mean()) if started else math.nan,
    )


def percentiles(values: "np.typing.ArrayLike", percents: Sequence[float]) -> list[float]:
    """Values that these percentages of all values do not exceed; NaN where there are no values."""
    array = np.asarray(values, float)
    if not array.size:
        return [math.nan] * len(percents)
    return [float(value) for value in np.percentile(array, percents, method="higher")]


def split(samples: Sequence[Sample], window: Window) -> dict[str, tuple[float, float]]:
    """Median and p95 in ms of each stage of the server, of their total, and of the time outside them.

    Returns:
        By stage; empty where no successful response of the window has a split.
    """
    timed = [sample for sample in samples if sample.timing_ms and not sample.error and window.holds(sample.started)]
    if not timed:
        return {}
    columns = {stage: [sample.timing_ms[stage] for sample in timed] for stage in (*STAGES, "total")}
    columns[OUTSIDE] = [sample.seconds * 1000 - sample.timing_ms["total"] for sample in timed]
    return {stage: (p50, p95) for stage, values in columns.items() for p50, p95 in [percentiles(values, (50, 95))]}


def max_in_progress(samples: Sequence[Sample]) -> int:
    """The largest number of requests that were in progress at the same moment."""
    # At the same moment an end comes before a start.
    moments = sorted([(sample.started, 1) for sample in samples] + [(sample.ended, -1) for sample in samples])
    return int(np.cumsum([step for _, step in moments]).max(initial=0))


def find_missed(figures: Figures, expected: Expected) -> list[str]:
    """A line for each missed threshold: what, got, expected."""
    if not figures.requests:
        return ["requests: got none, expected at least one; next: a longer DURATION_S"]
    lines = []
    if expected.rate is not None and figures.responses_per_second < REACHED * expected.rate:
        got = figures.responses_per_second
        lines.append(
            f"rate: the run does not count: got {got:.1f} requests/s ({got / expected.rate:.0%}), "
            f"expected at least {REACHED:.0%} of {expected.rate:g}"
        )
    if expected.fail_ratio is not None and figures.fail_ratio > expected.fail_ratio:
        lines.append(
            f"failures: got {figures.fail_ratio:.2%} ({figures.failures} of {figures.requests}), "
            f"expected at most {expected.fail_ratio:.2%}"
        )
    if expected.p95_ms is not None and figures.p95 > expected.p95_ms:
        lines.append(f"p95: got {figures.p95:.1f} ms, expected at most {expected.p95_ms:g} ms")
    return lines
