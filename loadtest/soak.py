"""`make soak`: half an hour at 80 % of the capacity of a running server, with a swap of the model every minute.

Beside `make serve REPOSITORY=...`: an open loop of requests from a light process, and every minute a new version. At
the end: failed requests; p99 of the first and the last fifth; memory and open files of each part, now and at the start.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, positive
from environment.project import in_project
from loadtest.errors import LoadTestError
from loadtest.flood import IMAGE, Target
from loadtest.generator.load import Load
from loadtest.generator.responses import Response, Result
from loadtest.parts import count_files, find_parent, memory_kib
from loadtest.repository import Uploads, shipped_versions
from registry.errors import RepositoryError

_SHARE = 0.8
MEASURE_S = 10.0
_SWAP_S = 60.0
_KEEP = 3
_FIFTH = 0.2
_WARM_UP_SWAPS = 2  # no drift before them: caches and pools fill


@dataclass(frozen=True)
class Sample:
    """The parts at one moment.

    Attributes:
        version: that was uploaded last.
        memory_kib: resident, of each part.
        files: open ones, of all parts together.
    """

    version: int
    memory_kib: Mapping[str, int]
    files: int


def main() -> int:
    """Soak, print a table, and write it as JSON; 1 where a request failed."""
    options = _parser().parse_args()
    console = Console()
    try:
        rate, result, samples = soak(options, console)
    except api_key.AccessError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    except (LoadTestError, httpx.HTTPError, OSError, psutil.Error, RepositoryError) as exc:
        console.print(f"error: {options.url}: {exc}; next: make serve REPOSITORY={options.repository}", soft_wrap=True)
        return 1
    summary = summarize(result, samples, rate)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(summary | {"samples": [asdict(sample) for sample in samples]}, indent=1))
    console.print(draw(summary))
    return int(summary["failed"] > 0)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nereid soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--repository", required=True, help="served model repository: s3://bucket/prefix or a folder")
    parser.add_argument("--model", default="digit-finder", help="a shipped one for images (default: %(default)s)")
    parser.add_argument("--minutes", type=positive, default=30, help="(default: %(default)s)")
    parser.add_argument("--connections", type=count, default=4, help="that measure the capacity (default: %(default)s)")
    parser.add_argument("--pid", type=int, help="of make serve (default: found by the port of --url)")
    parser.add_argument("--output", type=Path, default=in_project("output/soak.json"), help="(default: %(default)s)")
    return parser


def soak(options: argparse.Namespace, console: Console) -> tuple[float, Result, list[Sample]]:
    """Send requests and swap until the time is over: requests/s, their responses, and the parts after each swap.

    Raises:
        LoadTestError: the server does not respond, or there is no version to upload, or no process to observe.
        AccessError: the server requires a key, or another one.
    """
    uploads = Uploads(options.repository, options.model, shipped_versions(options.model)[-1:], keep=_KEEP)
    parent = psutil.Process(options.pid) if options.pid else find_parent(httpx.URL(options.url).port or 80)
    with httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client:
        target = Target(client, options.model, IMAGE)
        target.latency_ms()  # fails with a reason where the server does
        rate = _SHARE * target.capacity(options.connections, MEASURE_S)
        plan = target.plan(options.minutes * 60, rate=rate)
    with Load(plan) as load, Progress(console=console) as progress:
        samples = _swap(load, uploads, parent, progress)
        return rate, load.stop(), samples


def _swap(load: Load, uploads: Uploads, parent: psutil.Process, progress: Progress) -> list[Sample]:
    """Upload a version every minute until the load ends; the parts after each upload, and at the end."""
    samples = []
    task = progress.add_task(f"{load.plan.rate:.0f} requests/s", total=load.plan.limit_s)
    began = time.monotonic()
    while load.process.poll() is None:
        elapsed = time.monotonic() - began
        progress.update(task, completed=min(elapsed, load.plan.limit_s))
        if elapsed < load.plan.limit_s and elapsed >= uploads.count * _SWAP_S:
            uploads.upload()
            uploads.prune()
            samples.append(Sample(uploads.newest, memory_kib(parent), count_files(parent)))
        time.sleep(0.5)
    return [*samples, Sample(uploads.newest, memory_kib(parent), count_files(parent))]


def summarize(result: Result, samples: Sequence[Sample], rate: float) -> dict[str, Any]:
    """Failures, and what drifted."""
    began = min((response.started for response in result.responses), default=0.0)
    seconds = max((response.ended for response in result.responses), default=began) - began
    statuses = [response.status or "no response" for response in result.responses]
    latencies_ms = [response.seconds * 1000 for response in result.successes]
    first = [each for each in result.successes if each.ended - began <= _FIFTH * seconds]
    last = [each for each in result.successes if each.ended - began >= (1 - _FIFTH) * seconds]
    steady = samples[min(_WARM_UP_SWAPS, len(samples) - 1) :]
    return {
        "rate": rate,
        "seconds": seconds,
        "requests": len(statuses),
        "failed": len(result.failures),
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "swaps": len({sample.version for sample in samples}),
        "p50_ms": float(np.median(latencies_ms)) if latencies_ms else float("nan"),
        "p99_first_fifth_ms": _p99_ms(first),
        "p99_last_fifth_ms": _p99_ms(last),
        "memory_mib": {
            part: [steady[0].memory_kib[part] / 1024, steady[-1].memory_kib.get(part, 0) / 1024]
            for part in steady[0].memory_kib
        },
        "files": [steady[0].files, steady[-1].files],
    }


def _p99_ms(responses: Sequence[Response]) -> float:
    return float(np.percentile([each.seconds * 1000 for each in responses], 99)) if responses else float("nan")


def draw(summary: Mapping[str, Any]) -> Table:
    """The summary as a table."""
    table = Table("", "first", "last", "last / first", title="Soak")
    pairs = {"p99, ms": (summary["p99_first_fifth_ms"], summary["p99_last_fifth_ms"])}
    pairs |= {f"{part}, MiB": tuple(values) for part, values in summary["memory_mib"].items()}
    pairs["open files"] = tuple(summary["files"])
    for name, (first, last) in pairs.items():
        table.add_row(name, f"{first:.1f}", f"{last:.1f}", f"{last / first:.2f}" if first else "")
    table.caption = (
        f"{summary['failed']} of {summary['requests']} requests failed ({summary['statuses']}),"
        f" {summary['swaps']} swaps,"
        f" {summary['rate']:.1f} requests/s for {summary['seconds'] / 60:.1f} minutes, p50 {summary['p50_ms']:.1f} ms"
    )
    return table


if __name__ == "__main__":
    sys.exit(main())
