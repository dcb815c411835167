"""`python -m loadtest.swap`: what a swap of a model costs its clients, beside a running `make serve REPOSITORY=...`.

Uploads prepared versions of a model in turn, manifest.json last, under constant load from four connections. For each
swap: seconds from the end of the upload to the first response of the new version; failed requests; p99.9 from the
begin of the upload until shortly after that response, and in as long a time before; resident memory of each part. At
the end medians, and the slope of memory over the last 80 % of the swaps.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, positive, seconds
from environment.project import in_project
from loadtest.errors import LoadTestError
from loadtest.generator.load import Load, Plan
from loadtest.generator.responses import Result
from loadtest.parts import find_parent, memory_kib
from loadtest.repository import Uploads, shipped_versions
from loadtest.tasks import PICTURES, TABLE_TASKS, TASKS
from registry.errors import RepositoryError

_ROOT = Path(__file__).parents[1]
_AFTER_S = 2.0  # the old version is unloaded after the first response of the new one
_STEADY = 0.8


@dataclass(frozen=True)
class Swap:
    """What one swap cost.

    Attributes:
        version: that was uploaded.
        seconds: from the end of the upload to its first response; None where none came.
        requests, failures: in the window of the swap.
        during_ms, before_ms: p99.9 in that window, and in as long a one before.
        memory_kib: resident, of each part.
        state: of the version, in the status of the synchroniser.
    """

    version: str
    seconds: float | None
    requests: int
    failures: int
    during_ms: float
    before_ms: float
    memory_kib: Mapping[str, int]
    state: str


def main() -> int:
    """Measure, print, and write output/swap.json."""
    options = _parser().parse_args()
    console = Console(highlight=False)
    swaps: list[Swap] = []
    try:
        with Load(_plan(options)) as load:
            measure(options, load, swaps, console)
    except (api_key.AccessError, LoadTestError, OSError, RepositoryError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; what was measured until now:")
    if not swaps:
        return 1
    summary = summarize(swaps)
    console.print(*tables(summary), sep="\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**summary, "swaps": [asdict(swap) for swap in swaps]}, indent=2) + "\n")
    draw(swaps, options.output.with_suffix(".png"))
    console.print(f"written: {options.output}", soft_wrap=True)
    return int(any(swap.failures or swap.seconds is None for swap in swaps))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nereid swap", description=__doc__.partition("\n")[0])
    parser.add_argument("--http", default="localhost:8080", help="host:port (default: %(default)s)")
    parser.add_argument("--grpc", default="localhost:8081", help="host:port (default: %(default)s)")
    parser.add_argument("--sync", default="http://localhost:8003", help="the synchroniser (default: %(default)s)")
    parser.add_argument("--repository", required=True, help="served model repository: s3://bucket/prefix or a folder")
    parser.add_argument("--model", default="iris", help="name (default: %(default)s)")
    parser.add_argument(
        "--versions", nargs="+", type=Path, help="version folders to upload in turn (default: the shipped model's)"
    )
    parser.add_argument("--swaps", type=count, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--keep", type=count, default=3, help="uploaded versions that stay (default: %(default)s)")
    parser.add_argument("--quiet-s", type=seconds, default=15, help="load alone between swaps (default: %(default)s)")
    parser.add_argument("--patience-s", type=positive, default=60, help="for one swap (default: %(default)s)")
    parser.add_argument(
        "--pause-s", type=seconds, default=0.01, help="of each connection after a response (default: %(default)s)"
    )
    parser.add_argument("--pid", type=int, help="of make serve (default: found by the port of --http)")
    parser.add_argument("--output", type=Path, default=in_project("output/swap.json"), help="(default: %(default)s)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """Requests that the model takes, by its metadata.

    Raises:
        LoadTestError: the server does not respond, or has no such model.
        AccessError: the server requires a key, or another one.
    """
    try:
        url = f"http://{options.http}/v2/models/{options.model}"
        response = httpx.get(url, headers=api_key.headers(), timeout=30, trust_env=False)
    except httpx.HTTPError as exc:
        raise LoadTestError(f"--http {options.http}: {exc}; next: make serve REPOSITORY={options.repository}") from exc
    api_key.check(options.http, response.status_code, response.text)
    if response.is_error:
        raise LoadTestError(f"--model {options.model}: {response.text}")
    described = response.json()
    task = described["parameters"].get("task")
    if task not in TASKS:
        raise LoadTestError(f"--model {options.model}: got task {task!r}, expected one of {', '.join(sorted(TASKS))}")
    row = [1.0] * described["inputs"][0]["shape"][-1] if task in TABLE_TASKS else []
    image_path = "" if row else str(_ROOT / "loadtest" / "pictures" / PICTURES[task])
    return Plan(options.http, options.grpc, options.model, row=row, image_path=image_path, pause_s=options.pause_s)


def measure(options: argparse.Namespace, load: Load, swaps: list[Swap], console: Console) -> None:
    """Swap as often as the options say; add what each swap cost.

    Raises:
        LoadTestError: there is no version to upload, the server does not respond, or there is no process to observe.
    """
    sources = options.versions or shipped_versions(options.model)
    uploads = Uploads(options.repository, options.model, sources, keep=options.keep)
    parent = psutil.Process(options.pid) if options.pid else find_parent(int(options.http.rpartition(":")[2]))
    if not load.wait_for(lambda response: not response.error, seconds=options.patience_s):
        failures = load.result().failures[-1:]
        raise LoadTestError(f"{options.model}: no successful response within {options.patience_s} s: {failures}")
    for _ in range(options.swaps):
        swap, during = _swap(options, load, uploads, parent)
        swaps.append(swap)
        console.print(describe(swap), markup=False, soft_wrap=True)
        for failed in during.failures[:3]:
            console.print(f"  failed: {failed.kind} {failed.error}", markup=False, soft_wrap=True)
        uploads.prune()


def _swap(options: argparse.Namespace, load: Load, uploads: Uploads, parent: psutil.Process) -> tuple[Swap, Result]:
    """Load alone for a while, then one swap: what it cost, and the responses during it."""
    quiet_since = time.monotonic()
    time.sleep(options.quiet_s)
    began = time.monotonic()
    uploads.upload()
    uploaded, version = time.monotonic(), str(uploads.newest)
    first = load.wait_for_version(version, seconds=options.patience_s)
    time.sleep(_AFTER_S)
    ended = time.monotonic()
    result = load.result()
    during, before = result.between(began, ended), result.between(max(2 * began - ended, quiet_since), began)
    load.drop(ended)
    swap = Swap(
        version=version,
        seconds=first.ended - uploaded if first else None,
        requests=len(during.responses),
        failures=len(during.failures),
        during_ms=during.percentile(99.9) * 1000,
        before_ms=before.percentile(99.9) * 1000,
        memory_kib=memory_kib(parent),
        state=read_state(options.sync, options.model, version),
    )
    return swap, during


def read_state(sync: str, model: str, version: str) -> str:
    """The state of a version in the status of the synchroniser; empty where it does not respond."""
    try:
        status = httpx.get(f"{sync}/status", timeout=5, trust_env=False).raise_for_status().json()
        described = status["models"][model]["versions"][version]
        return " ".join(filter(None, (described["state"], described["reason"])))
    except (httpx.HTTPError, LookupError, ValueError):
        return ""


def describe(swap: Swap) -> str:
    """One line."""
    seconds = "never served" if swap.seconds is None else f"{swap.seconds:5.1f} s"
    memory = "  ".join(f"{part} {kib / 1024:.1f}" for part, kib in swap.memory_kib.items())
    return (
        f"{swap.version:>5} {seconds}  failed {swap.failures} of {swap.requests}  p99.9 {swap.during_ms:.1f} ms, "
        f"before {swap.before_ms:.1f} ms  MiB: {memory}  {swap.state}"
    )


def summarize(swaps: Sequence[Swap]) -> dict[str, Any]:
    """Medians over all swaps, and memory over the last 80 %."""
    served = [swap.seconds for swap in swaps if swap.seconds is not None]
    steady = swaps[len(swaps) - round(len(swaps) * _STEADY) :]
    memory = {}
    for part in steady[-1].memory_kib:
        kib = [swap.memory_kib.get(part, 0) for swap in steady]
        slope = float(np.polyfit(range(len(kib)), kib, 1)[0]) if len(kib) > 1 else 0.0
        memory[part] = {"first_kib": kib[0], "last_kib": kib[-1], "slope_kib_per_swap": round(slope, 2)}
    return {
        "swaps_done": len(swaps),
        "never_served": len(swaps) - len(served),
        "failures": sum(swap.failures for swap in swaps),
        "requests": sum(swap.requests for swap in swaps),
        "seconds_median": statistics.median(served) if served else None,
        "seconds_longest": max(served, default=None),
        "p999_during_ms_median": statistics.median(swap.during_ms for swap in swaps),
        "p999_before_ms_median": statistics.median(swap.before_ms for swap in swaps),
        "p999_ratio_median": statistics.median(swap.during_ms / swap.before_ms for swap in swaps),
        "p999_ratio_largest": max(swap.during_ms / swap.before_ms for swap in swaps),
        "memory": memory,
    }


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The summary as tables."""
    figures = Table("figure", title=f"{summary['swaps_done']} swaps")
    figures.add_column("value", justify="right")
    for name, value in summary.items():
        if name != "memory":
            figures.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    memory = Table("part", title="Resident memory over the last 80 % of the swaps")
    for heading in ("first MiB", "last MiB", "slope KiB per swap"):
        memory.add_column(heading, justify="right")
    for part, row in summary["memory"].items():
        first, last = row["first_kib"] / 1024, row["last_kib"] / 1024
        memory.add_row(part, f"{first:.1f}", f"{last:.1f}", f"{row['slope_kib_per_swap']:.1f}")
    return [figures, memory]


def draw(swaps: Sequence[Swap], path: Path) -> None:
    """A chart where matplotlib is installed; this program does not require it."""
    if not find_spec("matplotlib"):
        return
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (latency, memory) = plt.subplots(2, sharex=True)
    numbers = range(1, len(swaps) + 1)
    latency.plot(numbers, [swap.during_ms for swap in swaps], label="p99.9 during the swap, ms")
    latency.plot(numbers, [swap.before_ms for swap in swaps], label="p99.9 before, ms")
    for part in swaps[-1].memory_kib:
        memory.plot(numbers, [swap.memory_kib.get(part, 0) / 1024 for swap in swaps], label=f"{part}, MiB")
    for axes in (latency, memory):
        axes.set_ylim(bottom=0)
        axes.legend()
    memory.set_xlabel("swap")
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
