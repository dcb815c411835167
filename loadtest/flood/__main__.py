"""`python -m loadtest.flood`: what a running server does with 2, 5 and 10 times of what it can.

Its capacity is measured first, by four connections that ask again when they are answered. Then requests begin at a
multiple of it, answered or not (an open loop), from a light process whose share of the cores is stated. Afterwards one
connection asks until it is answered as fast as before, and the capacity is measured again: what a shared machine can do
wanders. So all of it is done several times; the table shows medians, and the most of what should be none.
"""

import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from environment import api_key
from environment.arguments import Parser
from environment.project import in_project
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
        factor: of the capacity before it.
        answered: good answers in a second, while requests kept coming.
        share: of the mean of the capacities before and after it.
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
    parser = Parser(prog="nereid flood", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=_PICTURE, help="that is asked about (default: %(default)s)")
    parser.add_argument("--factors", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="(default: 2 5 10)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each flood (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of all floods, in turn (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="that measure the capacity (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=in_project("output/flood.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    console = Console()
    try:
        with (
            httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client,
            Progress(console=console) as bar,
        ):
            factors = options.factors * options.repeats
            task = bar.add_task("measuring", total=2 + 2 * len(factors))
            meter = Meter(client, options.model, options.picture)
            alone_ms = statistics.median(meter.ask_alone() for _ in range(20))
            bar.advance(task)
            capacities = [meter.capacity(options.connections, options.seconds)]
            memory_mib = resident_mib(options.url)
            bar.advance(task)
            floods = []
            for factor in factors:
                flooded = flood(meter, factor, capacities[-1], alone_ms=alone_ms, seconds=options.seconds)
                bar.advance(task)
                capacities.append(meter.capacity(options.connections, options.seconds))
                floods.append(replace(flooded, share=flooded.answered / statistics.mean(capacities[-2:])))
                bar.advance(task)
    except api_key.AccessError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except (FloodError, httpx.HTTPError) as exc:
        print(f"error: {options.url}: {exc}; next: make serve", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(flood) for flood in floods], indent=1))
    console.print(
        f"capacity {statistics.median(capacities):.1f} requests/s ({min(capacities):.1f} to {max(capacities):.1f}) over"
        f" {options.connections} connections; alone {alone_ms:.1f} ms; {memory_mib:.0f} MiB before"
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
        math.nan,  # until the capacity after it is known
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
    """A row for each factor: medians, and the most of what should be none."""
    table = Table(title="Floods")
    for column in (
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
    ):
        table.add_column(column, justify="right")
    for factor in dict.fromkeys(flood.factor for flood in floods):
        same = [flood for flood in floods if flood.factor == factor]

        def median(name: str, same: list[Flood] = same) -> float:
            return float(statistics.median(getattr(flood, name) for flood in same))

        shares = [flood.share for flood in same]
        table.add_row(
            f"{factor:g}",
            f"{median('answered'):.1f}",
            f"{median('share'):.0%} ({min(shares):.0%} to {max(shares):.0%})",
            f"{median('answered_p99_ms'):.0f}",
            f"{median('refused'):.0%}",
            f"{median('refused_p99_ms'):.0f}",
            f"{max(flood.late for flood in same):.1%}",
            f"{max(flood.failed for flood in same):.1%}",
            f"{max(flood.memory_mib for flood in same):.0f}",
            f"{max(flood.back_s for flood in same):.1f}",
            f"{median('generator'):.0%}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
