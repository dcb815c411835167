"""`python -m loadtest.flood`: what a running server does with 2, 5 and 10 times of what it can.

Its capacity is measured first, by as many connections as it works at at once. Then requests begin at a multiple of it,
answered or not (an open loop), from a light process whose share of the cores is stated. Afterwards one connection asks
until it is answered as fast as before.
"""

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.flood.meter import FloodError, Meter
from loadtest.latency.counters import resident_mib

_ROOT = Path(__file__).parents[2]
_PICTURE = _ROOT / "loadtest" / "pictures" / "digits.jpg"
_BACK = 1.5  # of the median before: the answer is as fast as it was
_BACK_LIMIT_S = 30.0
_REFUSED, _LATE = 429, 504


@dataclass(frozen=True)
class Flood:
    """What became of one flood.

    Attributes:
        factor: of the capacity.
        answered: good answers in a second, while requests kept coming.
        share: of the capacity.
        answered_p99_ms, refused_p99_ms: latencies; NaN where there were none.
        refused, late, failed: shares of the requests: 429, 504, and whatever else was no good answer.
        memory_mib: resident, at its end.
        back_s: until one connection is answered as fast as before.
        generator: share of one core.
    """

    factor: float
    answered: float
    share: float
    answered_p99_ms: float
    refused_p99_ms: float
    refused: float
    late: float
    failed: float
    memory_mib: float
    back_s: float
    generator: float


def main() -> int:
    """Measure, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(prog="make flood", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=_PICTURE, help="that is asked about (default: %(default)s)")
    parser.add_argument("--factors", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="(default: 2 5 10)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each flood (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="that measure the capacity (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("output/flood.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    console = Console()
    try:
        with (
            httpx.Client(base_url=options.url, timeout=60, trust_env=False) as client,
            Progress(console=console) as bar,
        ):
            task = bar.add_task("measuring", total=2 + len(options.factors))
            meter = Meter(client, options.model, options.picture)
            alone_ms = statistics.median(meter.ask_alone() for _ in range(20))
            bar.advance(task)
            capacity = meter.capacity(options.connections, options.seconds)
            memory_mib = resident_mib(options.url)
            bar.advance(task)
            floods = []
            for factor in options.factors:
                floods.append(flood(meter, factor, capacity, alone_ms=alone_ms, seconds=options.seconds))
                bar.advance(task)
    except (FloodError, httpx.HTTPError) as exc:
        print(f"error: {options.url}: {exc}; next: make serve", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(flood) for flood in floods], indent=1))
    console.print(
        f"capacity {capacity:.1f} requests/s over {options.connections} connections; alone {alone_ms:.1f} ms;"
        f" {memory_mib:.0f} MiB before"
    )
    console.print(draw(floods))
    return 0


def flood(meter: Meter, factor: float, capacity: float, *, alone_ms: float, seconds: float) -> Flood:
    """Begin so many times the capacity, and see."""
    outcome = meter.generate(factor * capacity, seconds)
    memory_mib = resident_mib(meter.url)
    back_s = _until_back(meter, alone_ms)
    statuses, latencies = np.array(outcome.statuses), np.array(outcome.latencies_ms)
    good = statuses == httpx.codes.OK
    # What is answered after the last request began is the line being emptied.
    during = good & (np.array(outcome.ended_s) <= seconds)
    answered = during.sum() / seconds
    return Flood(
        factor,
        answered,
        answered / capacity,
        _p99(latencies[good]),
        _p99(latencies[statuses == _REFUSED]),
        float(np.mean(statuses == _REFUSED)),
        float(np.mean(statuses == _LATE)),
        float(np.mean(~np.isin(statuses, (httpx.codes.OK, _REFUSED, _LATE)))),
        memory_mib,
        back_s,
        outcome.cpu_s / outcome.seconds,
    )


def _until_back(meter: Meter, alone_ms: float) -> float:
    """Seconds until three answers in a row are as fast as before."""
    began = time.monotonic()
    while time.monotonic() - began < _BACK_LIMIT_S:
        reached = time.monotonic() - began
        try:
            if max(meter.ask_alone() for _ in range(3)) <= _BACK * alone_ms:
                return reached
        except FloodError:  # still refused
            time.sleep(0.05)
    return math.inf


def _p99(latencies_ms: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    return float(np.percentile(latencies_ms, 99)) if len(latencies_ms) else math.nan


def draw(floods: list[Flood]) -> Table:
    """A row for each flood."""
    columns = (
        "times the capacity",
        "good/s",
        "of the capacity",
        "p99 of good, ms",
        "429",
        "p99 of 429, ms",
        "504",
        "failed",
        "MiB",
        "back after s",
        "generator, of a core",
    )
    table = Table(*columns, title="Floods")
    for flood in floods:
        table.add_row(
            f"{flood.factor:g}",
            f"{flood.answered:.1f}",
            f"{flood.share:.0%}",
            f"{flood.answered_p99_ms:.0f}",
            f"{flood.refused:.0%}",
            f"{flood.refused_p99_ms:.0f}",
            f"{flood.late:.1%}",
            f"{flood.failed:.1%}",
            f"{flood.memory_mib:.0f}",
            f"{flood.back_s:.1f}",
            f"{flood.generator:.0%}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
