"""What was measured, and the arithmetic on it. Nothing here talks, and nothing imports Locust."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

STAGES = ("queue", "decode", "preprocess", "infer", "postprocess")
OUTSIDE = "outside"  # of the server's stages: transport, parsing, waiting for the event loop
REACHED = 0.95


class Sample(NamedTuple):
    """One request.

    Attributes:
        kind: one of `questions.KINDS`.
        started: `time.monotonic()`: when it was sent; in an open loop when it should have been.
        seconds: from then until the answer was read.
        error: what went wrong; empty for a good answer.
        timing_ms: the server's own split; empty where the answer carries none.
    """

    kind: str
    started: float
    seconds: float
    error: str
    timing_ms: Mapping[str, float] = {}

    @property
    def ended(self) -> float:
        """When the answer was read."""
        return self.started + self.seconds


@dataclass(frozen=True)
class Window:
    """A span of `time.monotonic()` that counts; what is asked before it is warm-up."""

    since: float = 0.0
    until: float = math.inf

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.until - self.since

    def holds(self, moment: float) -> bool:
        """Whether a moment is in it."""
        return self.since <= moment < self.until


@dataclass(frozen=True)
class Figures:
    """Samples in numbers; milliseconds of all requests, failed ones too, NaN where there are none.

    Attributes:
        requests: that started in the window.
        failures: of them.
        answered: answers that were read in the window, good or not, whenever their request started.
        answered_per_second: the same in each second.
        p50, p95, p99, longest, mean: of those that started in the window.
    """

    requests: int
    failures: int
    answered: int
    answered_per_second: float
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
    """What a run is held against; None where nothing is.

    Attributes:
        p95_ms: at most.
        fail_ratio: at most.
        rate: requests in each second, of which `REACHED` must be answered.
    """

    p95_ms: float | None = None
    fail_ratio: float | None = None
    rate: float | None = None
    reached: float = field(default=REACHED)


def summarize(samples: Sequence[Sample], window: Window) -> Figures:
    """Samples of a window in numbers."""
    started = [sample for sample in samples if window.holds(sample.started)]
    answered = sum(window.holds(sample.ended) for sample in samples)
    times_ms = np.array([sample.seconds * 1000 for sample in started])
    p50, p95, p99 = percentiles(times_ms, (50, 95, 99))
    return Figures(
        requests=len(started),
        failures=sum(bool(sample.error) for sample in started),
        answered=answered,
        answered_per_second=answered / window.seconds,
        p50=p50,
        p95=p95,
        p99=p99,
        longest=float(times_ms.max(initial=-math.inf)) if started else math.nan,
        mean=float(times_ms.mean()) if started else math.nan,
    )


def percentiles(values: "np.typing.ArrayLike", percents: Sequence[float]) -> list[float]:
    """Values that so many percent do not exceed; NaN of nothing."""
    array = np.asarray(values, float)
    if not array.size:
        return [math.nan] * len(percents)
    return [float(value) for value in np.percentile(array, percents, method="higher")]


def split(samples: Sequence[Sample], window: Window) -> dict[str, tuple[float, float]]:
    """Median and p95 in ms of each of the server's stages, of their total, and of what lies outside them.

    Returns:
        By stage; empty where no good answer of the window says.
    """
    timed = [sample for sample in samples if sample.timing_ms and not sample.error and window.holds(sample.started)]
    if not timed:
        return {}
    columns = {stage: [sample.timing_ms[stage] for sample in timed] for stage in (*STAGES, "total")}
    columns[OUTSIDE] = [sample.seconds * 1000 - sample.timing_ms["total"] for sample in timed]
    return {stage: (p50, p95) for stage, values in columns.items() for p50, p95 in [percentiles(values, (50, 95))]}


def most_under_way(samples: Sequence[Sample]) -> int:
    """How many requests were under way at the same moment, at most."""
    # At the same moment an end comes before a begin.
    moments = sorted([(sample.started, 1) for sample in samples] + [(sample.ended, -1) for sample in samples])
    return int(np.cumsum([step for _, step in moments]).max(initial=0))


def find_missed(figures: Figures, expected: Expected) -> list[str]:
    """A line for each threshold that was missed: what, got, expected."""
    if not figures.requests:
        return ["requests: got none, expected at least one; next: a longer DURATION_S"]
    lines = []
    if expected.rate is not None and figures.answered_per_second < expected.reached * expected.rate:
        got = figures.answered_per_second
        lines.append(
            f"rate: the run does not count: got {got:.1f} requests/s ({got / expected.rate:.0%}), "
            f"expected at least {expected.reached:.0%} of {expected.rate:g}"
        )
    if expected.fail_ratio is not None and figures.fail_ratio > expected.fail_ratio:
        lines.append(
            f"failures: got {figures.fail_ratio:.2%} ({figures.failures} of {figures.requests}), "
            f"expected at most {expected.fail_ratio:.2%}"
        )
    if expected.p95_ms is not None and figures.p95 > expected.p95_ms:
        lines.append(f"p95: got {figures.p95:.1f} ms, expected at most {expected.p95_ms:g} ms")
    return lines
