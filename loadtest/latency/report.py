"""A measurement as tables, a chart, and JSON."""

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
from rich.table import Table

from environment import cpus
from loadtest import conditions
from loadtest.latency import capacity
from loadtest.latency.capacity import Step
from loadtest.latency.cold import FIRST, Burst
from loadtest.latency.measurement import Measurement, Plan
from loadtest.latency.samples import OUTSIDE, STAGES, Sample, Window, max_in_progress, percentiles, split, summarize

mpl.use("Agg")
import matplotlib.pyplot as plt

TOTAL = "total"
_HEAVY = 1 / 3
_ERRORS_SHOWN = 5
_POINTS = 60  # of a chart, at most


def _conditions() -> dict[str, Any]:
    """Date, commit, machine and command of this run."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": conditions.commit(),
        "machine": cpus.machine(),
        "command": shlex.join(["python", "-m", "loadtest.latency", *sys.argv[1:]]),
    }


def by_kind(samples: Sequence[Sample], kinds: Sequence[str]) -> dict[str, list[Sample]]:
    """Samples of each kind, and of all together."""
    parts = {kind: [sample for sample in samples if sample.kind == kind] for kind in kinds}
    return {**parts, TOTAL: list(samples)} if len(kinds) > 1 else {TOTAL: list(samples)}


def latency_table(plan: Plan, measured: Measurement) -> Table:
    """Latencies of the client."""
    loop = f"{plan.users} users" if plan.rate is None else f"open loop of {plan.rate:g} requests/s"
    table = Table("kind", title=f"{plan.target.model}, {loop}, {measured.window.seconds:.0f} s, latencies in ms")
    for heading in ("requests", "failures", "requests/s", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for kind, samples in by_kind(measured.samples, list(plan.weights)).items():
        figures = summarize(samples, measured.window)
        times = [_ms(value) for value in (figures.p50, figures.p95, figures.p99, figures.longest)]
        table.add_row(kind, str(figures.requests), str(figures.failures), f"{figures.responses_per_second:.1f}", *times)
    return table


def split_table(plan: Plan, measured: Measurement) -> Table:
    """The split that the server reports."""
    headings = (*STAGES, "total", OUTSIDE)
    table = Table("kind", title="The server's split of successful responses, ms, p50 / p95")
    for heading in headings:
        table.add_column(heading, justify="right")
    for kind, samples in by_kind(measured.samples, list(plan.weights)).items():
        stages = split(samples, measured.window)
        cells = [" / ".join(map(_ms, stages[heading])) for heading in headings] if stages else ["–"] * len(headings)
        table.add_row(kind, *cells)
    return table


def triton_line(measured: Measurement) -> str:
    """Triton's counters."""
    if isinstance(measured.triton, str):
        return f"Triton's metrics are absent: {measured.triton}"
    parts = dict(measured.triton)
    requests, batch = parts.pop("requests"), parts.pop("batch")
    times = ", ".join(f"{part} {_ms(value)}" for part, value in parts.items())
    return f"Triton, mean ms of {requests:.0f} requests: {times}; {batch:.2f} items in a run"


def memory_lines(measured: Measurement) -> list[str]:
    """Memory by the transformer's own metrics; empty where it is unknown."""
    before, after = measured.resident_mib
    if math.isnan(before) or math.isnan(after):
        return []
    return [f"transformer: {before:.1f} MiB resident at the begin of the window, {after:.1f} at its end"]


def generator_lines(measured: Measurement) -> list[str]:
    """CPU share of the generator."""
    cores = psutil.cpu_count() or 1
    in_progress = f"at most {_max_in_progress(measured)} requests in progress"
    line = f"generator: {measured.cpu_share:.0%} of the machine's {cores} cores; {in_progress}"
    if measured.cpu_share <= _HEAVY:
        return [line]
    reason = "above a third: it slows what it measures; next: run it on another machine"
    return [line, f"warning: generator: {measured.cpu_share:.0%} of the machine is {reason}"]


def error_lines(samples: Sequence[Sample], window: Window) -> list[str]:
    """The most frequent errors."""
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        if sample.error and window.holds(sample.started):
            counts[sample.kind, sample.error] = counts.get((sample.kind, sample.error), 0) + 1
    most_frequent = sorted(counts.items(), key=lambda item: -item[1])[:_ERRORS_SHOWN]
    return [f"failed {count} times: {kind}: {error}" for (kind, error), count in most_frequent]


def burst_table(bursts: Sequence[Burst]) -> Table:
    """The first responses after each silence."""
    table = Table("burst", title="After silence")
    for heading in ("requests", "failures", "first response, s", f"first {FIRST} responses, ms", "p50 after them, ms"):
        table.add_column(heading, justify="right")
    for number, burst in enumerate(bursts, 1):
        first = "none came" if burst.first_response_s is None else f"{burst.first_response_s:.3f}"
        times = " ".join(_ms(value) for value in burst.first_ms) or "–"
        table.add_row(str(number), str(burst.requests), str(burst.failures), first, times, _ms(burst.steady_p50_ms))
    return table


def capacity_lines(knee: Step, p95_ms: float, rate: float | None) -> list[str]:
    """The capacity of a replica, what it means for an InferenceService, and the replicas for a rate."""
    scaling = capacity.scaling(knee)
    hard_limit = f"containerConcurrency: {scaling.container_concurrency}"
    lines = [
        f"capacity of one replica: {knee.rate:.1f} requests/s (p95 {knee.p95_ms:.1f} ms, at most {p95_ms:g} ms; "
        f"mean {knee.mean_ms:.1f} ms)",
        "in the InferenceService, one of the two:",
        f"  scaleMetric: concurrency   scaleTarget: {scaling.concurrency_target}   {hard_limit}",
        f"  scaleMetric: rps           scaleTarget: {scaling.rps_target}   {hard_limit}",
        f"nodes, price and what breaks first, for any rate: make plan RATE_PER_POD={knee.rate:.1f}",
    ]
    if rate:
        lines.append(f"replicas for {rate:g} requests/s: {capacity.replicas(rate, scaling)}")
    return lines


def write_result(
    path: Path, plan: Plan, measured: Measurement, missed: Sequence[str], bursts: Sequence[Burst] = ()
) -> None:
    """Write every figure as JSON."""
    parts = by_kind(measured.samples, list(plan.weights))
    document = {
        **_conditions(),
        "model": plan.target.model,
        "task": plan.target.task,
        "weights": dict(plan.weights),
        "rate": plan.rate,
        "users": plan.users,
        "window_s": measured.window.seconds,
        "latency": {kind: asdict(summarize(samples, measured.window)) for kind, samples in parts.items()},
        "server": {kind: split(samples, measured.window) for kind, samples in parts.items()},
        "triton": measured.triton,
        "cpu_share": measured.cpu_share,
        "resident_mib": measured.resident_mib,
        "under_way": _max_in_progress(measured),
        "missed": list(missed),
        **({"bursts": [asdict(burst) for burst in bursts]} if bursts else {}),
    }
    path.write_text(json.dumps(_finite(document), indent=2) + "\n")


def draw(path: Path, plan: Plan, measured: Measurement) -> None:
    """Percentiles and throughput over time."""
    seconds, columns = _over_time(measured)
    figure, (latency, throughput) = plt.subplots(2, sharex=True, figsize=(9, 6), layout="constrained")
    for name in ("p50", "p95", "p99"):
        latency.plot(seconds, columns[name], marker=".", label=name)
    latency.set(title=f"{plan.target.model}: {', '.join(plan.weights)}", ylabel="latency, ms")
    throughput.plot(seconds, columns["successful"], marker=".", label="successful")
    throughput.plot(seconds, columns["failed"], marker=".", color="red", label="failed")
    if plan.rate is not None:
        throughput.axhline(plan.rate, linestyle=":", color="grey", label="rate")
    throughput.set(ylabel="requests/s", xlabel="s")
    for axes in (latency, throughput):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _over_time(measured: Measurement) -> tuple[Sequence[float], Mapping[str, list[float]]]:
    """Seconds since the begin of the window, and there: percentiles in ms, successful and failed responses/s."""
    window = measured.window
    step_s = max(1.0, window.seconds / _POINTS)
    edges = [window.since + index * step_s for index in range(max(1, round(window.seconds / step_s)))]
    columns: dict[str, list[float]] = {"p50": [], "p95": [], "p99": [], "successful": [], "failed": []}
    for since in edges:
        ended = [sample for sample in measured.samples if since <= sample.ended < since + step_s]
        failed = sum(bool(sample.error) for sample in ended)
        times_ms = percentiles([sample.seconds * 1000 for sample in ended], (50, 95, 99))
        row = (*times_ms, (len(ended) - failed) / step_s, failed / step_s)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return [since - window.since + step_s / 2 for since in edges], columns


def _max_in_progress(measured: Measurement) -> int:
    return max_in_progress([sample for sample in measured.samples if measured.window.holds(sample.started)])


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _finite(value: Any) -> Any:
    """A value for JSON: None in place of NaN, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
