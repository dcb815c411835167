"""A measurement for the eye and for other programs: tables, a chart, JSON."""

import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
from rich.table import Table

from loadtest.latency.cold import FIRST, Burst
from loadtest.latency.measurement import Measurement, Plan
from loadtest.latency.samples import OUTSIDE, STAGES, Sample, Window, most_under_way, percentiles, split, summarize

mpl.use("Agg")
import matplotlib.pyplot as plt

TOTAL = "total"
_HEAVY = 1 / 3
_ERRORS_SHOWN = 5
_POINTS = 60  # of a chart, at most


def conditions() -> dict[str, Any]:
    """When, where and how this run is made."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:  # no git
        commit = ""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "machine": f"{psutil.cpu_count()} cores, {cpu}",
        "command": shlex.join(["python", "-m", "loadtest.latency", *sys.argv[1:]]),
    }


def by_kind(samples: Sequence[Sample], kinds: Sequence[str]) -> dict[str, list[Sample]]:
    """Samples of each kind, and of all together."""
    parts = {kind: [sample for sample in samples if sample.kind == kind] for kind in kinds}
    return {**parts, TOTAL: list(samples)} if len(kinds) > 1 else {TOTAL: list(samples)}


def latency_table(plan: Plan, measured: Measurement) -> Table:
    """What the client saw."""
    loop = f"{plan.users} users" if plan.rate is None else f"{plan.rate:g} requests/s asked for"
    table = Table("asked by", title=f"{plan.target.model}, {loop}, {measured.window.seconds:.0f} s, latencies in ms")
    for heading in ("requests", "failures", "requests/s", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for kind, samples in by_kind(measured.samples, list(plan.weights)).items():
        figures = summarize(samples, measured.window)
        times = [_ms(value) for value in (figures.p50, figures.p95, figures.p99, figures.longest)]
        table.add_row(kind, str(figures.requests), str(figures.failures), f"{figures.answered_per_second:.1f}", *times)
    return table


def split_table(plan: Plan, measured: Measurement) -> Table:
    """What the server says of itself."""
    headings = (*STAGES, "total", OUTSIDE)
    table = Table("asked by", title="The server's own split of good answers, ms, p50 / p95")
    for heading in headings:
        table.add_column(heading, justify="right")
    for kind, samples in by_kind(measured.samples, list(plan.weights)).items():
        stages = split(samples, measured.window)
        cells = [" / ".join(map(_ms, stages[heading])) for heading in headings] if stages else ["–"] * len(headings)
        table.add_row(kind, *cells)
    return table


def triton_line(measured: Measurement) -> str:
    """What Triton's counters say."""
    if isinstance(measured.triton, str):
        return f"Triton's metrics are absent: {measured.triton}"
    parts = dict(measured.triton)
    requests, batch = parts.pop("requests"), parts.pop("batch")
    times = ", ".join(f"{part} {_ms(value)}" for part, value in parts.items())
    return f"Triton, mean ms of {requests:.0f} requests: {times}; {batch:.2f} items in a run"


def memory_lines(measured: Measurement) -> list[str]:
    """What the transformer's own metrics say; nothing where they were not asked."""
    before, after = measured.resident_mib
    if math.isnan(before) or math.isnan(after):
        return []
    return [f"transformer: {before:.1f} MiB resident when the window began, {after:.1f} when it ended"]


def generator_lines(measured: Measurement) -> list[str]:
    """What the generator itself took."""
    cores = psutil.cpu_count() or 1
    under_way = f"at most {_under_way(measured)} requests under way"
    line = f"generator: {measured.cpu_share:.0%} of the machine's {cores} cores; {under_way}"
    if measured.cpu_share <= _HEAVY:
        return [line]
    words = "above a third: it slows what it measures; next: run it on another machine"
    return [line, f"warning: generator: {measured.cpu_share:.0%} of the machine is {words}"]


def error_lines(samples: Sequence[Sample], window: Window) -> list[str]:
    """The commonest errors."""
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        if sample.error and window.holds(sample.started):
            counts[sample.kind, sample.error] = counts.get((sample.kind, sample.error), 0) + 1
    commonest = sorted(counts.items(), key=lambda item: -item[1])[:_ERRORS_SHOWN]
    return [f"failed {count} times: {kind}: {error}" for (kind, error), count in commonest]


def burst_table(bursts: Sequence[Burst]) -> Table:
    """The first answers after each silence."""
    table = Table("burst", title="After silence")
    for heading in ("requests", "failures", "first answer, s", f"first {FIRST} answers, ms", "p50 after them, ms"):
        table.add_column(heading, justify="right")
    for number, burst in enumerate(bursts, 1):
        first = "none came" if burst.first_answer_s is None else f"{burst.first_answer_s:.3f}"
        times = " ".join(_ms(value) for value in burst.first_ms) or "–"
        table.add_row(str(number), str(burst.requests), str(burst.failures), first, times, _ms(burst.steady_p50_ms))
    return table


def write_result(
    path: Path, plan: Plan, measured: Measurement, missed: Sequence[str], bursts: Sequence[Burst] = ()
) -> None:
    """Everything that was printed, for programs."""
    parts = by_kind(measured.samples, list(plan.weights))
    document = {
        **conditions(),
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
        "under_way": _under_way(measured),
        "missed": list(missed),
        **({"bursts": [asdict(burst) for burst in bursts]} if bursts else {}),
    }
    path.write_text(json.dumps(_finite(document), indent=2) + "\n")


def draw(path: Path, plan: Plan, measured: Measurement) -> None:
    """Percentiles and throughput over time."""
    window = measured.window
    step_s = max(1.0, window.seconds / _POINTS)
    edges = [window.since + index * step_s for index in range(max(1, round(window.seconds / step_s)))]
    columns: dict[str, list[float]] = {"p50": [], "p95": [], "p99": []}
    good, failed = [], []
    for since in edges:
        ended = [sample for sample in measured.samples if since <= sample.ended < since + step_s]
        for name, value in zip(
            columns, percentiles([sample.seconds * 1000 for sample in ended], (50, 95, 99)), strict=True
        ):
            columns[name].append(value)
        failed.append(sum(bool(sample.error) for sample in ended) / step_s)
        good.append(len(ended) / step_s - failed[-1])
    seconds = [since - window.since + step_s / 2 for since in edges]
    figure, (latency, throughput) = plt.subplots(2, sharex=True, figsize=(9, 6), layout="constrained")
    for name, values in columns.items():
        latency.plot(seconds, values, marker=".", label=name)
    latency.set(title=f"{plan.target.model}: {', '.join(plan.weights)}", ylabel="latency, ms")
    throughput.plot(seconds, good, marker=".", label="good answers")
    throughput.plot(seconds, failed, marker=".", color="red", label="failures")
    if plan.rate is not None:
        throughput.axhline(plan.rate, linestyle=":", color="grey", label="asked for")
    throughput.set(ylabel="requests/s", xlabel="s")
    for axes in (latency, throughput):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _under_way(measured: Measurement) -> int:
    return most_under_way([sample for sample in measured.samples if measured.window.holds(sample.started)])


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _finite(value: Any) -> Any:
    """The same without NaN, which is no JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
