"""`make soak`: half an hour at 80 % of what a running server can, with a swap of the model every minute.

Beside `make serve REPOSITORY=...`: an open loop of requests from a light process, and every minute a new version. At
the end: failed requests; p99 of the first and the last fifth; memory and open files of each part, then and before.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from environment import api_key
from environment.arguments import Parser
from environment.project import in_project
from loadtest.flood.generator import Outcome
from loadtest.flood.meter import FloodError, Meter
from loadtest.swap import Bucket, Folder, SwapError, find_parent, upload, weigh

_ROOT = Path(__file__).parents[1]
_PICTURE = _ROOT / "loadtest" / "pictures" / "digits.jpg"
_SHARE = 0.8
_MEASURE_S = 10.0
_SWAP_S = 60.0
_KEEP = 3
_FIFTH = 0.2
_WARM_UP_SWAPS = 2  # before what is drift: caches and pools fill


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
    parser = Parser(prog="nereid soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--repository", required=True, help="what it serves: s3://bucket/prefix or a folder")
    parser.add_argument("--model", default="digit-finder", help="a shipped one for pictures (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="that measure the capacity (default: %(default)s)")
    parser.add_argument("--pid", type=int, help="of make serve (default: found by the port of --url)")
    parser.add_argument("--output", type=Path, default=in_project("output/soak.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    console = Console()
    try:
        rate, outcome, samples = soak(options, console)
    except api_key.AccessError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    except (FloodError, SwapError, httpx.HTTPError, OSError, psutil.Error, BotoCoreError, ClientError) as exc:
        console.print(f"error: {options.url}: {exc}; next: make serve REPOSITORY={options.repository}", soft_wrap=True)
        return 1
    summary = summarize(outcome, samples, rate)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(summary | {"samples": [asdict(sample) for sample in samples]}, indent=1))
    console.print(draw(summary))
    return int(summary["failed"] > 0)


def soak(options: argparse.Namespace, console: Console) -> tuple[float, Outcome, list[Sample]]:
    """Ask and swap until the time is over: requests/s, what became of them, and the parts after each swap.

    Raises:
        FloodError: the server does not answer.
        SwapError: there is nothing to upload, or no process to weigh.
        AccessError: the server wants a key, or another one.
    """
    repository = Bucket(options.repository) if options.repository.startswith("s3://") else Folder(options.repository)
    source = find_newest(_ROOT / "model_repository" / options.model)
    port = httpx.URL(options.url).port or 80
    parent = psutil.Process(options.pid) if options.pid else find_parent(port)
    samples: list[Sample] = []
    with (
        httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client,
        Progress(console=console) as bar,
    ):
        meter = Meter(client, options.model, _PICTURE)
        rate = _SHARE * meter.capacity(options.connections, _MEASURE_S)
        seconds = options.minutes * 60
        task = bar.add_task(f"{rate:.0f} requests/s", total=seconds)
        newest = max((int(name) for name in repository.versions(options.model) if name.isdigit()), default=0)
        number = newest
        began = time.monotonic()
        with meter.generating(rate, seconds) as generation:
            while not generation.is_over:
                elapsed = time.monotonic() - began
                bar.update(task, completed=min(elapsed, seconds))
                if elapsed < seconds and elapsed >= (number - newest) * _SWAP_S:
                    number += 1
                    upload(repository, options.model, number, source)
                    if number - _KEEP > newest:
                        repository.delete(options.model, str(number - _KEEP))
                    samples.append(Sample(number, weigh(parent), count_files(parent)))
                time.sleep(0.5)
            samples.append(Sample(number, weigh(parent), count_files(parent)))
            return rate, generation.result(), samples


def find_newest(model: Path) -> Path:
    """The folder of a model's highest version.

    Raises:
        SwapError: there is none.
    """
    versions = [path for path in model.glob("*") if path.name.isdigit()]
    if not versions:
        raise SwapError(f"no version of {model.name} in {model.parent}; next: make models")
    return max(versions, key=lambda path: int(path.name))


def count_files(parent: psutil.Process) -> int:
    """Open files of all parts."""
    count = 0
    for process in parent.children(recursive=True):
        try:
            count += process.num_fds()
        except psutil.Error:  # it has just ended
            continue
    return count


def summarize(outcome: Outcome, samples: list[Sample], rate: float) -> dict[str, Any]:
    """Failures, and what drifted."""
    statuses, latencies, ended = (
        np.array(values) for values in (outcome.statuses, outcome.latencies_ms, outcome.ended_s)
    )
    last_s = ended.max(initial=0)
    good = statuses == httpx.codes.OK

    def p99(chosen: "np.ndarray[Any, np.dtype[np.bool_]]") -> float:
        return float(np.percentile(latencies[good & chosen], 99)) if (good & chosen).any() else float("nan")

    steady = samples[min(_WARM_UP_SWAPS, len(samples) - 1) :]
    return {
        "rate": rate,
        "seconds": float(last_s),
        "requests": len(statuses),
        "failed": int((~good).sum()),
        "statuses": {str(status): int((statuses == status).sum()) for status in np.unique(statuses)},
        "swaps": len({sample.version for sample in samples}),
        "p50_ms": float(np.median(latencies[good])) if good.any() else float("nan"),
        "p99_first_fifth_ms": p99(ended <= _FIFTH * last_s),
        "p99_last_fifth_ms": p99(ended >= (1 - _FIFTH) * last_s),
        "memory_mib": {
            part: [steady[0].memory_kib[part] / 1024, steady[-1].memory_kib.get(part, 0) / 1024]
            for part in steady[0].memory_kib
        },
        "files": [steady[0].files, steady[-1].files],
    }


def draw(summary: Mapping[str, Any]) -> Table:
    """The summary for the eye."""
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
