"""One run of Locust: a warm-up, then the window that is measured."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gevent
import psutil
from locust.html import get_html_report
from locust.stats import PERCENTILES_TO_REPORT, StatsCSVFileWriter, stats_history

from loadtest.latency import counters
from loadtest.latency.payloads import Target
from loadtest.latency.samples import Sample, Window
from loadtest.latency.users import LoadEnvironment, ScaleToZero

_LEAD_S = 0.05


@dataclass(frozen=True)
class Plan:
    """The load of a run.

    Attributes:
        target: where requests go.
        weights: of the kinds of `payloads.KINDS`.
        users: of a closed loop.
        rate: of an open loop, requests/s; None: a closed loop.
        connections: of an open loop, all kinds together, at most.
        warm_up_s, duration_s: before the window, and of the window.
        metrics_url: Triton's.
    """

    target: Target
    weights: Mapping[str, int]
    users: int
    rate: float | None
    connections: int
    warm_up_s: float
    duration_s: float
    metrics_url: str


@dataclass(frozen=True)
class Measurement:
    """The result of a run.

    Attributes:
        samples: all requests, also of the warm-up.
        window: that is measured.
        triton: see `counters.difference`.
        cpu_share: of the whole machine that this process took in the window, from 0 to 1.
        resident_mib: of the transformer at the begin and the end of the window; NaN where that is unknown.
        began: when each burst of a shape began.
    """

    samples: Sequence[Sample]
    window: Window
    triton: Mapping[str, float] | str
    cpu_share: float
    resident_mib: tuple[float, float] = (math.nan, math.nan)
    began: Sequence[float] = ()


def measure(plan: Plan, folder: Path | None = None) -> Measurement:
    """Warm up, measure, and wait for requests in progress; Locust's report and CSV go to the folder."""
    environment = LoadEnvironment(plan.target, plan.weights, rate=plan.rate, connections=plan.connections)
    users = plan.users if plan.rate is None else len(plan.weights)
    runner = environment.create_local_runner()
    environment.begin(plan.warm_up_s, plan.duration_s)
    window = environment.window
    runner.start(users, spawn_rate=users)
    gevent.sleep(max(0, window.since - _LEAD_S - time.monotonic()))
    environment.stats.reset_all()  # Locust's clock begins here; it gets no request from before the window
    gevent.sleep(max(0, window.since - time.monotonic()))
    resident_mib = counters.resident_mib(plan.target.url)
    before, cpu_s = counters.scrape(plan.metrics_url, plan.target.model), _cpu_s()
    since = time.monotonic()
    with _kept(environment, folder):
        gevent.sleep(max(0, window.until - time.monotonic()))
        cpu_share = (_cpu_s() - cpu_s) / (time.monotonic() - since) / (psutil.cpu_count() or 1)
        after = counters.scrape(plan.metrics_url, plan.target.model)
        if plan.rate is not None:
            runner.user_greenlets.join()
        runner.stop()
    runner.quit()
    return Measurement(
        environment.samples,
        window,
        counters.difference(before, after),
        cpu_share,
        (resident_mib, counters.resident_mib(plan.target.url)),
    )


def follow(plan: Plan, shape: ScaleToZero, folder: Path) -> Measurement:
    """Run with as many users as a shape decides, until its end; everything is measured."""
    environment = LoadEnvironment(plan.target, plan.weights, shape=shape)
    runner = environment.create_local_runner()
    before, cpu_s, since = counters.scrape(plan.metrics_url, plan.target.model), _cpu_s(), time.monotonic()
    runner.start_shape()
    with _kept(environment, folder):
        if runner.shape_greenlet is not None:
            runner.shape_greenlet.join()
    until = time.monotonic()
    cpu_share = (_cpu_s() - cpu_s) / (until - since) / (psutil.cpu_count() or 1)
    after = counters.scrape(plan.metrics_url, plan.target.model)
    runner.quit()
    triton = counters.difference(before, after)
    return Measurement(environment.samples, Window(since, until), triton, cpu_share, began=shape.began)


def _cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


@contextmanager
def _kept(environment: LoadEnvironment, folder: Path | None) -> Iterator[None]:
    """Write Locust's own files of the measured requests: CSV, and its report."""
    if folder is None:
        yield
        return
    writer = StatsCSVFileWriter(environment, PERCENTILES_TO_REPORT, str(folder / "locust"), full_history=True)
    greenlets = [gevent.spawn(writer), gevent.spawn(stats_history, environment.runner)]
    try:
        yield
        # Locust writes once per second, and a last time now.
        gevent.sleep(1.1)
    finally:
        gevent.killall(greenlets)
        writer.close_files()
    (folder / "locust.html").write_text(get_html_report(environment, show_download_link=False))
