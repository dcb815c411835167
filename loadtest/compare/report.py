"""A run as text and image: tables for the terminal, Markdown for docs/benchmarks.md, a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtest.compare.agreement import Agreement
from loadtest.compare.summary import CONNECTIONS, Medians, Target, beyond, is_limit, limit_of, pipeline_of, ratio

_VERDICTS = {True: "yes", False: "no", None: ""}
Grid = Sequence[Sequence[str]]  # the first row is the headings


def speed(medians: Medians, titles: Mapping[str, str]) -> Grid:
    """A row for each candidate."""
    headings = [
        *("candidate", *(f"req/s at {count}" for count in CONNECTIONS)),
        *(f"p50 / p95 / p99 ms at {count}" for count in CONNECTIONS),
        *("CPU ms per request", "memory MiB", "generator CPU", "others' CPU", "failures"),
    ]
    counts = {name: sorted(key[2] for key in medians.rows if key[:2] == (name, "image")) for name in titles}
    return [headings, *([titles[name], *_speed(medians, name, counts[name])] for name in titles if counts[name])]


def _speed(medians: Medians, name: str, counts: Sequence[int]) -> Sequence[str]:
    """Cells of a candidate; CPU is that at 4 connections, or at the most where that was not measured."""
    busy = 4 if 4 in counts else counts[-1]
    if is_limit(name):
        rates = [_figure(medians.rate(name, 1), 1), f"{_figure(medians.full(name), 1)} (limit)", ""]
    else:
        rates = [_figure(medians.rate(name, count), 1) for count in CONNECTIONS]
    percentiles = [
        " / ".join(_figure(medians.get(name, f"p{percent}_ms", count), 1) for percent in (50, 95, 99))
        if count in counts
        else ""
        for count in CONNECTIONS
    ]
    cpu_s = medians.get(name, "cpu_s_per_request", busy)
    return [
        *(*rates, *percentiles),
        _figure(cpu_s * 1000 if cpu_s is not None else None, 1),
        _figure(medians.get(name, "pss_mib", counts[-1]), 0),
        _figure(medians.get(name, "generator_cpu", busy), 3),
        _figure(medians.get(name, "others_cpu", busy), 2),
        str(int(sum(row["failures"] or 0 for key, row in medians.rows.items() if key[0] == name))),
    ]


def ratios(medians: Medians, titles: Mapping[str, str]) -> Grid:
    """Nereid's configurations to each baseline and to their limit."""
    ours = [name for name in titles if name.startswith("nereid-")]
    theirs = [name for name in titles if not (name.startswith("nereid-") or is_limit(name))]
    figures: list[str]
    rows = [["to"] + [f"{titles[name]}: {what}" for name in ours for what in ("req/s at 4", "p50 at 1")]]
    for other in theirs:
        figures = []
        for name in ours:
            figures += [
                _times(ratio(medians.rate(name, 4), medians.rate(other, 4))),
                _times(ratio(medians.p50(name), medians.p50(other))),
            ]
        rows.append([titles[other], *figures])
    for text, limit in (("its pipeline in one process", pipeline_of), ("its bare model: the limit", limit_of)):
        figures = []
        for name in ours:
            added_ms = beyond(medians, name, limit(name))
            figures += [
                _times(ratio(medians.full(name), medians.full(limit(name)))) + " (full load)",
                f"{_times(ratio(medians.p50(name), medians.p50(limit(name))))} ({_added(added_ms)})",
            ]
        rows.append([text, *figures])
    return rows if ours else []


def further(medians: Medians, titles: Mapping[str, str]) -> Grid:
    """The other requests, at one connection."""
    rows = [["request", "candidate", "p50 ms", "p99 ms", "req/s"]]
    for name, title in titles.items():
        for request, text in (("large", "12-megapixel JPEG"), ("iris", "iris, one row, v2 JSON")):
            if (name, request, 1) in medians.rows:
                figures = (medians.get(name, figure, 1, request) for figure in ("p50_ms", "p99_ms", "requests_per_s"))
                rows.append([text, title, *(_figure(value, 1) for value in figures)])
    return sorted(rows[1:]) and [rows[0], *sorted(rows[1:], key=lambda row: row[0])]


def agreements(found: Mapping[str, Agreement], precisions: Mapping[str, float], titles: Mapping[str, str]) -> Grid:
    """Detections beside those of Ultralytics with PyTorch."""
    rows = [["candidate", "detections", "matched", "largest score difference", "largest box difference", "mAP50-95"]]
    for name, agreement in found.items():
        rows.append(
            [
                titles[name],
                f"{agreement.found} of {agreement.expected}",
                f"{agreement.share:.2%}",
                f"{agreement.score:.4f}",
                f"{agreement.box_px:.2f} px",
                _figure(precisions.get(name), 4),
            ]
        )
    return rows


def verdicts(targets: Sequence[Target]) -> Grid:
    """The targets."""
    rows = [["target", "wanted", "reached", "met"]]
    return rows + [[target.text, target.wanted, target.reached, _VERDICTS[target.met]] for target in targets]


def to_table(title: str, grid: Grid) -> Table:
    """For the terminal."""
    table = Table(*grid[0], title=title)
    for index, column in enumerate(table.columns):
        column.justify = "right" if index and "target" not in grid[0] else "left"
    for row in grid[1:]:
        table.add_row(*row)
    return table


def to_markdown(title: str, grid: Grid) -> str:
    """For a page of Markdown."""
    lines = [" | ".join(row) for row in (grid[0], ["---"] * len(grid[0]), *grid[1:])]
    return f"**{title}**\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def draw(medians: Medians, titles: Mapping[str, str], path: Path) -> None:
    """Requests/s with the limits, and p50 at one connection."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second

    mpl.use("agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    names = [name for name in titles if not is_limit(name) and medians.rate(name, 4) is not None]
    figure, axes = plt.subplots(1, 2, figsize=(13, 1.5 + 0.55 * len(names)), layout="constrained", sharey=True)
    places = range(len(names))
    height = 0.8 / len(CONNECTIONS)
    for index, count in enumerate(CONNECTIONS):
        rates = [medians.rate(name, count) or 0.0 for name in names]
        axes[0].barh([place + (index - 1) * height for place in places], rates, height, label=f"{count} connections")
    for number, name in enumerate(name for name in titles if name.startswith("bare-")):
        limit = medians.full(name)
        if limit is not None:
            axes[0].axvline(
                limit, color="black", linestyle=("--", ":", "-.")[number % 3], label=f"limit: {titles[name]}"
            )
    bars: Any = axes[1].barh(places, [medians.p50(name) or 0.0 for name in names], 0.6, color="tab:gray")
    axes[1].bar_label(bars, fmt="%.1f", padding=3)
    axes[0].set_yticks(places, [titles[name] for name in names])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("requests/s")
    axes[1].set_xlabel("p50 at 1 connection, ms")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _added(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f} ms"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
