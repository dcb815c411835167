"""The arithmetic of the latency tests."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest

from loadtest import tasks
from loadtest.latency import capacity, counters, images
from loadtest.latency.capacity import Step
from loadtest.latency.cold import FIRST, bursts
from loadtest.latency.samples import (
    Expected,
    Sample,
    Window,
    find_missed,
    max_in_progress,
    percentiles,
    split,
    summarize,
)
from tests.support.stack import ROOT
from transformer.tasks import TASKS
from transformer.tasks.task import ImageTask

TIMING = {"queue": 1.0, "decode": 2.0, "preprocess": 0.5, "infer": 20.0, "postprocess": 0.5, "total": 24.0}


def sample(
    started: float, seconds: float, error: str = "", timing: Mapping[str, float] = MappingProxyType({})
) -> Sample:
    return Sample("predict", started, seconds, error, timing)


def test_figures_of_no_samples() -> None:
    figures = summarize([], Window(0, 10))
    assert (figures.requests, figures.failures, figures.responses_per_second, figures.fail_ratio) == (0, 0, 0, 0)
    assert math.isnan(figures.p95)
    assert math.isnan(figures.longest)
    assert split([], Window(0, 10)) == {}
    assert max_in_progress([]) == 0


def test_warm_up_counts_for_no_latency() -> None:
    samples = [sample(9.0, 5.0), *(sample(10 + n, 0.1) for n in range(10)), sample(20.0, 9.0)]
    figures = summarize(samples, Window(10, 20))
    assert figures.requests == 10
    assert figures.longest == pytest.approx(100)
    # A response that was read in the window counts for its throughput, whenever its request started.
    assert figures.responses == 11
    assert figures.responses_per_second == pytest.approx(1.1)


def test_percentiles_are_of_all_requests_and_never_below_a_sample() -> None:
    figures = summarize([sample(n, (n + 1) / 1000, "503" if n == 99 else "") for n in range(100)], Window(0, 100))
    assert (figures.failures, figures.fail_ratio) == (1, 0.01)
    assert (figures.p50, figures.p95, figures.p99, figures.longest) == pytest.approx((51, 96, 100, 100))
    assert figures.mean == pytest.approx(50.5)
    assert percentiles([7], (50, 99)) == [7, 7]


def test_split_is_that_of_successful_responses_that_have_one() -> None:
    samples = [
        sample(1, 0.030, timing=TIMING),
        sample(2, 0.034, timing=TIMING),
        sample(3, 0.9, "504", timing=TIMING),
        sample(4, 0.5),
    ]
    stages = split(samples, Window(0, 10))
    assert stages["infer"] == (20, 20)
    assert list(stages["outside"]) == pytest.approx([10, 10])
    assert list(stages) == ["queue", "decode", "preprocess", "infer", "postprocess", "total", "outside"]


def test_max_in_progress() -> None:
    assert max_in_progress([sample(0, 1), sample(1, 1), sample(2, 1)]) == 1
    assert max_in_progress([sample(0, 3), sample(1, 1), sample(1.5, 3), sample(5, 1)]) == 3


MISSED = [
    (Expected(), []),
    (Expected(p95_ms=96, fail_ratio=0.01, rate=1.05), []),
    (Expected(p95_ms=95), ["p95: got 96.0 ms, expected at most 95 ms"]),
    (Expected(fail_ratio=0), ["failures: got 1.00% (1 of 100), expected at most 0.00%"]),
    (
        Expected(rate=2),
        ["rate: the run does not count: got 1.0 requests/s (50%), expected at least 95% of 2"],
    ),
]


@pytest.mark.parametrize(("expected", "lines"), MISSED)
def test_missed_thresholds_are_reported(expected: Expected, lines: list[str]) -> None:
    samples = [sample(n, (n + 1) / 1000, "503" if n == 99 else "") for n in range(100)]
    assert find_missed(summarize(samples, Window(0, 100)), expected) == lines


def test_no_request_is_a_miss() -> None:
    assert "got none" in find_missed(summarize([], Window(0, 1)), Expected())[0]


def server(limit: float, rates: list[float], *, flaky: bool = False) -> Callable[[float], Step]:
    """A server that sustains a rate; a flaky one fails each rate the first time."""

    def measure(rate: float) -> Step:
        first = rate not in rates
        rates.append(rate)
        return Step(rate, rate, 20.0, 40.0, ("p95",) if rate > limit or (flaky and first) else ())

    return measure


@pytest.mark.parametrize("limit", [0.3, 3, 10, 47, 1000])
@pytest.mark.parametrize("flaky", [False, True])
def test_capacity_is_near_the_limit(limit: float, flaky: bool) -> None:
    rates: list[float] = []
    knee = capacity.find(server(limit, rates, flaky=flaky), 10, lowest=0.1)
    assert knee is not None
    assert limit / 1.08 <= knee.rate <= limit
    assert len(rates) < 30


def test_server_that_holds_no_rate_has_no_capacity() -> None:
    rates: list[float] = []
    assert capacity.find(server(0, rates), 10, lowest=1) is None
    assert rates == [10, 10, 5, 5, 2.5, 2.5, 1.25, 1.25]


@pytest.mark.parametrize(
    ("step", "concurrency", "rps", "hard"),
    [
        (Step(40, 40, 100, 150, ()), 4, 30, 8),
        (Step(40, 39, 99, 150, ()), 3, 29, 6),
        (Step(0.5, 0.5, 1000, 1500, ()), 1, 1, 2),
    ],
)
def test_scaling_follows_littles_law(step: Step, concurrency: int, rps: int, hard: int) -> None:
    scaling = capacity.scaling(step)
    assert (scaling.concurrency_target, scaling.rps_target, scaling.container_concurrency) == (concurrency, rps, hard)
    assert capacity.replicas(90, scaling) == math.ceil(90 / rps)
    assert capacity.replicas(0.01, scaling) == 1


def test_bursts() -> None:
    first = [sample(100 + n, 1.0 if n else 30.0) for n in range(FIRST + 3)]
    second = [sample(200, 0.001, "503"), sample(201, 0.5)]
    silent = [sample(300, 60, "timeout")]
    cold = bursts([*first, *second, *silent], [99.5, 199, 299])
    assert [(burst.requests, burst.failures) for burst in cold] == [(13, 0), (2, 1), (1, 1)]
    # The request that waited longest does not get the first response.
    assert [burst.first_response_s for burst in cold] == [2.0, 1.5, None]
    assert (len(cold[0].first_ms), cold[0].steady_p50_ms) == (FIRST, 1000)
    assert (cold[1].first_ms, math.isnan(cold[1].steady_p50_ms)) == ([500], True)
    assert bursts([], [1.0])[0].first_response_s is None


def test_counters_are_differences_of_two_scrapes() -> None:
    before = {"nv_inference_request_success": 10.0, "nv_inference_queue_duration_us": 5000.0}
    after = {
        "nv_inference_request_success": 14.0,
        "nv_inference_queue_duration_us": 9000.0,
        "nv_inference_compute_infer_duration_us": 80_000.0,
        "nv_inference_count": 8.0,
        "nv_inference_exec_count": 2.0,
    }
    grown = counters.difference(before, after)
    assert isinstance(grown, dict)
    assert (grown["requests"], grown["batch"], grown["queue"], grown["compute infer"]) == (4, 4, 1, 20)
    assert "no request" in counters.difference(after, after)
    assert counters.difference("away", after) == "away"
    assert counters.difference(before, "gone") == "gone"


def test_images_are_always_the_same(tmp_path: Path) -> None:
    made = images.read(images.make(tmp_path / "one"))
    assert made == images.read(images.make(tmp_path / "two"))
    sizes = {cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR).shape[1::-1] for file in made}  # type: ignore[union-attr]
    assert sizes == set(images.SIZES)
    assert max(width * height for width, height in sizes) == 12_000_000
    assert sorted(path.suffix for path in (tmp_path / "one").iterdir()) == [".jpg"] * len(sizes)


def test_every_task_is_measured_and_swapped_under_load_with_a_shipped_image() -> None:
    assert set(tasks.TASKS) == set(TASKS)
    assert {name for name, task in TASKS.items() if isinstance(task, ImageTask)} == set(tasks.PICTURES)
    assert all((ROOT / "loadtest" / "pictures" / name).is_file() for name in tasks.PICTURES.values())
