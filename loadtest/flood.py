"""`make flood`: what a running server does with 2, 5 and 10 times the requests that it can serve.

The capacity is measured first, in a closed loop of four connections. Then requests begin at a multiple of it, whatever
becomes of earlier ones (an open loop), from this process, whose share of a core is in the table. Afterwards one
connection sends requests until they are as fast as before, and the capacity is measured again: what a shared machine
can do varies. All of this is done several times; the table shows medians, and the maximum of what should be zero.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, positive
from environment.project import in_project
from loadtest.errors import LoadTestError
from loadtest.generator.load import Plan
from loadtest.generator.loops import Outcome, measure
from loadtest.latency.counters import resident_mib

IMAGE = Path(__file__).parent / "pictures" / "digits.jpg"
_RECOVERED = 1.5  # times the median latency before: a response is as fast as it was
_RECOVERY_LIMIT_S = 30.0
_TIMEOUT_S = 40.0
_MAX_CONNECTIONS = 1000
_WIDTH = 150  # of a file
_OK, _REJECTED, _LATE = "200", "429", "504"

Column = Callable[[str], list[float]]  # values of an attribute of `Flood`


@dataclass(frozen=True)
class Flood:
    """The result of one flood.

    Attributes:
        factor: times the capacity before it.
        successes: successful responses per second, while requests kept coming.
        share: of the mean of the capacities before and after it.
        successes_p99_ms, rejected_p99_ms: latencies; NaN where there were none.
        rejected, late, failed: shares of the requests: 429, 504, and every other failure.
        memory_mib: resident, at its end.
        back_s: until one connection gets its responses as fast as before.
        generator: share of one core.
    """

    factor: float
    successes: float
    share: float
    successes_p99_ms: float
    rejected_p99_ms: float
    rejected: float
    late: float
    failed: float
    memory_mib: float
    back_s: float
    generator: float


class Target:
    """One server, one model, one image.

    Attributes:
        url: of the server.
    """

    def __init__(self, client: httpx.Client, model: str, image: Path) -> None:
        self._client = client
        self._model, self._image = model, image
        self.url = str(client.base_url).rstrip("/")

    def latency_ms(self) -> float:
        """The latency of one request, while no other is in progress.

        Raises:
            LoadTestError: it failed.
            AccessError: the server requires a key, or another one.
        """
        body, path = self._image.read_bytes(), f"/predict/{self._model}"
        began = time.perf_counter()
        response = self._client.post(path, content=body, headers={"Content-Type": "application/octet-stream"})
        api_key.check(self.url, response.status_code, response.text)
        if response.is_error:
            raise LoadTestError(f"{path}: {response.status_code} {response.text[:200]}")
        return (time.perf_counter() - began) * 1000

    def capacity(self, connections: int, seconds: float) -> float:
        """Successful responses per second in a closed loop.

        Raises:
            LoadTestError: no request succeeded.
        """
        outcome = self.measure(seconds, connections=connections)
        if not outcome.result.successes:
            raise LoadTestError(f"no request succeeded: {outcome.result.failures[0].error}")
        return outcome.result.ended_before(outcome.began + seconds).per_second

    def plan(
        self, seconds: float, *, rate: float | None = None, poisson: bool = False, connections: int = _MAX_CONNECTIONS
    ) -> Plan:
        """Requests to `/predict` whose responses are not parsed, so that the generator takes little of the cores."""
        return Plan(
            self._client.base_url.netloc.decode(), "", self._model, image_path=str(self._image), kinds=("predict",),
            is_parsed=False, rate=rate, poisson=poisson, connections=connections, timeout_s=_TIMEOUT_S, limit_s=seconds,
        )  # fmt: skip

    def measure(self, seconds: float, **loop: Any) -> Outcome:
        """Run a plan from this process."""
        plan = self.plan(seconds, **loop)
        return measure(plan.requests(), plan)


def main() -> int:
    """Measure, print a table, and write it as JSON."""
    options = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        with (
            httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client,
            # Progress is drawn between measurements only: the generator shares its process with no drawing thread.
            Progress(console=console, auto_refresh=False) as progress,
        ):
            summary, floods = run(Target(client, options.model, options.picture), options, progress)
    except api_key.AccessError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except (LoadTestError, httpx.HTTPError) as exc:
        print(f"error: {options.url}: {exc}; next: make serve", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(flood) for flood in floods], indent=1))
    console.print(summary)
    console.print(draw(floods))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nereid flood", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=IMAGE, help="image to send (default: %(default)s)")
    parser.add_argument("--factors", type=positive, nargs="+", default=[2.0, 5.0, 10.0], help="(default: 2 5 10)")
    parser.add_argument("--seconds", type=positive, default=5.0, help="of each flood (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=5, help="of all floods, in turn (default: %(default)s)")
    parser.add_argument("--connections", type=count, default=4, help="that measure the capacity (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=in_project("output/flood.json"), help="(default: %(default)s)")
    return parser


def run(target: Target, options: argparse.Namespace, progress: Progress) -> tuple[str, list[Flood]]:
    """All floods, each between two measurements of the capacity; and what there was before them, in one line."""
    factors = options.factors * options.repeats
    task = progress.add_task("measuring", total=2 + 2 * len(factors))
    alone_ms = statistics.median(target.latency_ms() for _ in range(20))
    progress.update(task, advance=1, refresh=True)
    capacities = [target.capacity(options.connections, options.seconds)]
    memory_mib = resident_mib(target.url)
    floods = []
    for factor in factors:
        progress.update(task, advance=1, refresh=True)
        flooded = flood(target, factor, capacities[-1], alone_ms=alone_ms, seconds=options.seconds)
        progress.update(task, advance=1, refresh=True)
        capacities.append(target.capacity(options.connections, options.seconds))
        floods.append(replace(flooded, share=flooded.successes / statistics.mean(capacities[-2:])))
    progress.update(task, advance=1, refresh=True)
    summary = (
        f"capacity {statistics.median(capacities):.1f} requests/s ({min(capacities):.1f} to {max(capacities):.1f}) over"
        f" {options.connections} connections; alone {alone_ms:.1f} ms; {memory_mib:.0f} MiB before"
    )
    return summary, floods


def flood(target: Target, factor: float, capacity: float, *, alone_ms: float, seconds: float) -> Flood:
    """Begin this multiple of the capacity, and wait until the server has recovered."""
    outcome = target.measure(seconds, rate=factor * capacity)
    memory_mib = resident_mib(target.url)
    back_s = _until_recovered(target, alone_ms)
    responses = outcome.result.responses
    statuses = np.array([response.status for response in responses])
    latencies_ms = np.array([response.seconds * 1000 for response in responses])
    # Responses after the last request began only empty the queue.
    during = outcome.result.ended_before(outcome.began + seconds).successes
    return Flood(
        factor=factor,
        successes=len(during) / seconds,
        share=math.nan,  # until the capacity after it is known
        successes_p99_ms=_p99(latencies_ms[statuses == _OK]),
        rejected_p99_ms=_p99(latencies_ms[statuses == _REJECTED]),
        rejected=float(np.mean(statuses == _REJECTED)),
        late=float(np.mean(statuses == _LATE)),
        failed=float(np.mean(~np.isin(statuses, (_OK, _REJECTED, _LATE)))),
        memory_mib=memory_mib,
        back_s=back_s,
        generator=outcome.cpu_s / outcome.seconds,
    )


def _until_recovered(target: Target, alone_ms: float) -> float:
    """Seconds until three responses in succession are as fast as before."""
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < _RECOVERY_LIMIT_S:
        try:
            if max(target.latency_ms() for _ in range(3)) <= _RECOVERED * alone_ms:
                return elapsed
        except LoadTestError:  # still rejected
            time.sleep(0.05)
    return math.inf


def _p99(latencies_ms: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    return float(np.percentile(latencies_ms, 99)) if len(latencies_ms) else math.nan


def draw(floods: list[Flood]) -> Table:
    """A row for each factor: medians, and the maximum of what should be zero."""
    columns: Mapping[str, Callable[[Column], str]] = {
        "times the capacity": lambda of: f"{of('factor')[0]:g}",
        "successful/s": lambda of: f"{statistics.median(of('successes')):.1f}",
        "of the capacity": lambda of: (
            f"{statistics.median(of('share')):.0%} ({min(of('share')):.0%} to {max(of('share')):.0%})"
        ),
        "p99 of successful, ms": lambda of: f"{statistics.median(of('successes_p99_ms')):.0f}",
        "429": lambda of: f"{statistics.median(of('rejected')):.0%}",
        "p99 of 429, ms": lambda of: f"{statistics.median(of('rejected_p99_ms')):.0f}",
        "504": lambda of: f"{max(of('late')):.1%}",
        "failed": lambda of: f"{max(of('failed')):.1%}",
        "MiB": lambda of: f"{max(of('memory_mib')):.0f}",
        "recovered after s": lambda of: f"{max(of('back_s')):.1f}",
        "generator, of a core": lambda of: f"{statistics.median(of('generator')):.0%}",
    }
    table = Table(title="Floods")
    for column in columns:
        table.add_column(column, justify="right")
    for factor in dict.fromkeys(flood.factor for flood in floods):
        same = [flood for flood in floods if flood.factor == factor]

        def of(name: str, same: list[Flood] = same) -> list[float]:
            return [getattr(flood, name) for flood in same]

        table.add_row(*(cell(of) for cell in columns.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
