"""`python -m loadtest.swap`: what swapping a model costs who asks it, beside a running `make serve REPOSITORY=...`.

Uploads prepared versions of a model in turn, manifest.json last, under load from four connections all the time. For
each swap: seconds from the upload's end to the first answer of the new version; failed requests; p99.9 from the
upload's begin until shortly after that answer, and in as long a time before; resident memory of each part. At the end
medians, and the slope of memory over the last 80 % of the swaps.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import psutil
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from environment import api_key
from loadtest.load import Load, Plan

_ROOT = Path(__file__).parents[1]
_MANIFEST = "manifest.json"
_TASKS = {"detect": "digits.jpg", "classify": "seven.png"}
_AFTER_S = 2.0  # the old version is unloaded after the new one's first answer
_STEADY = 0.8


class SwapError(Exception):
    """Nothing can be measured; the message says what and what to do."""


@dataclass(frozen=True)
class Swap:
    """What one swap cost.

    Attributes:
        version: that was uploaded.
        seconds: from the upload's end to the first answer; None where none came.
        requests, failures: in the window of the swap.
        during_ms, before_ms: p99.9 in that window, and in as long a one before.
        memory_kib: resident, of each part.
        state: what the synchroniser says of the version.
    """

    version: str
    seconds: float | None
    requests: int
    failures: int
    during_ms: float
    before_ms: float
    memory_kib: Mapping[str, int]
    state: str


class Folder:
    """A local repository."""

    def __init__(self, url: str) -> None:
        self._root = Path(url)

    def versions(self, model: str) -> list[str]:
        return [path.name for path in (self._root / model).glob("*")]

    def put(self, key: str, content: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, model: str, version: str) -> None:
        shutil.rmtree(self._root / model / version)


class Bucket:
    """A repository on S3."""

    def __init__(self, url: str) -> None:
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._client = boto3.client("s3")

    def versions(self, model: str) -> list[str]:
        return list({key.removeprefix(f"{self._prefix}{model}/").split("/")[0] for key in self._keys(f"{model}/")})

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def delete(self, model: str, version: str) -> None:
        for key in self._keys(f"{model}/{version}/"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _keys(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def main() -> int:
    """Measure, print, and write output/swap.json."""
    options = _parser().parse_args()
    console = Console(highlight=False)
    swaps: list[Swap] = []
    try:
        with Load(_plan(options)) as load:
            measure(options, load, swaps, console)
    except (api_key.AccessError, SwapError, OSError, BotoCoreError, ClientError) as exc:
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
    parser = argparse.ArgumentParser(prog="python -m loadtest.swap", description=__doc__.partition("\n")[0])
    parser.add_argument("--http", default="localhost:8080", help="host:port (default: %(default)s)")
    parser.add_argument("--grpc", default="localhost:8081", help="host:port (default: %(default)s)")
    parser.add_argument("--sync", default="http://localhost:8003", help="the synchroniser (default: %(default)s)")
    parser.add_argument("--repository", required=True, help="what is served: s3://bucket/prefix or a folder")
    parser.add_argument("--model", default="iris", help="name (default: %(default)s)")
    parser.add_argument(
        "--versions", nargs="+", type=Path, help="version folders to upload in turn (default: the shipped model's)"
    )
    parser.add_argument("--swaps", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--keep", type=int, default=3, help="uploaded versions to leave (default: %(default)s)")
    parser.add_argument("--quiet-s", type=float, default=15, help="load alone between swaps (default: %(default)s)")
    parser.add_argument("--patience-s", type=float, default=60, help="for one swap (default: %(default)s)")
    parser.add_argument(
        "--pause-s", type=float, default=0.01, help="of each connection after an answer (default: %(default)s)"
    )
    parser.add_argument("--pid", type=int, help="of make serve (default: found by the port of --http)")
    parser.add_argument("--output", type=Path, default=Path("output/swap.json"), help="(default: %(default)s)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """The question that the model takes, by what the server says of it.

    Raises:
        SwapError: it does not answer, or has no such model.
        AccessError: it wants a key, or another one.
    """
    try:
        url = f"http://{options.http}/v2/models/{options.model}"
        reply = httpx.get(url, headers=api_key.headers(), timeout=30, trust_env=False)
    except httpx.HTTPError as exc:
        raise SwapError(f"--http {options.http}: {exc}; next: make serve REPOSITORY={options.repository}") from exc
    api_key.check(options.http, reply.status_code, reply.text)
    if reply.is_error:
        raise SwapError(f"--model {options.model}: {reply.text}")
    described = reply.json()
    task = described["parameters"]["task"]
    row = [1.0] * described["inputs"][0]["shape"][-1] if task == "tabular" else []
    picture = "" if row else str(_ROOT / "loadtest" / "pictures" / _TASKS[task])
    return Plan(options.http, options.grpc, options.model, row=row, picture=picture, pause_s=options.pause_s)


def measure(options: argparse.Namespace, load: Load, swaps: list[Swap], console: Console) -> None:
    """Swap again and again; add what each cost.

    Raises:
        SwapError: there is nothing to upload, nobody to ask, or no process to weigh.
    """
    repository = Bucket(options.repository) if options.repository.startswith("s3://") else Folder(options.repository)
    shipped = _ROOT / "model_repository" / options.model
    sources = options.versions or sorted(path.parent for path in shipped.glob("*/model.onnx"))
    if not sources:
        raise SwapError(f"--versions: no version in {shipped}; next: make models, or name folders")
    parent = psutil.Process(options.pid) if options.pid else find_parent(int(options.http.rpartition(":")[2]))
    if not load.wait_for(lambda answer: not answer.error, seconds=options.patience_s):
        raise SwapError(f"{options.model}: no good answer in {options.patience_s} s: {load.result().failures[-1:]}")
    first_number = max((int(name) for name in repository.versions(options.model) if name.isdigit()), default=0) + 1
    for number in range(first_number, first_number + options.swaps):
        quiet_since = time.monotonic()
        time.sleep(options.quiet_s)
        began = time.monotonic()
        upload(repository, options.model, number, sources[(number - first_number) % len(sources)])
        uploaded = time.monotonic()
        answer = load.wait_for_version(str(number), seconds=options.patience_s)
        time.sleep(_AFTER_S)
        ended = time.monotonic()
        result = load.result()
        during, before = result.between(began, ended), result.between(max(2 * began - ended, quiet_since), began)
        swap = Swap(
            version=str(number),
            seconds=answer.ended - uploaded if answer else None,
            requests=len(during.answers),
            failures=len(during.failures),
            during_ms=during.percentile(99.9) * 1000,
            before_ms=before.percentile(99.9) * 1000,
            memory_kib=weigh(parent),
            state=ask_state(options.sync, options.model, str(number)),
        )
        swaps.append(swap)
        console.print(describe(swap), markup=False, soft_wrap=True)
        for failed in during.failures[:3]:
            console.print(f"  failed: {failed.kind} {failed.error}", markup=False, soft_wrap=True)
        load.drop(ended)
        if number - options.keep >= first_number:  # only what is its own
            repository.delete(options.model, str(number - options.keep))


def upload(repository: Folder | Bucket, model: str, number: int, source: Path) -> None:
    """Upload a version folder under another number, manifest.json last."""
    for path in sorted(source.iterdir(), key=lambda path: path.name == _MANIFEST):
        content = path.read_bytes()
        if path.name == _MANIFEST:
            content = json.dumps(json.loads(content) | {"model": model, "version": str(number)}).encode()
        repository.put(f"{model}/{number}/{path.name}", content)


def find_parent(port: int) -> psutil.Process:
    """The parent of what listens on this port.

    Raises:
        SwapError: nothing of this user does.
    """
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            parent = psutil.Process(connection.pid).parent() if connection.pid else None
            if parent is not None:
                return parent
    raise SwapError(f"--http: no process of yours listens on port {port}; next: --pid <of make serve>")


def weigh(parent: psutil.Process) -> dict[str, int]:
    """Resident KiB of each part; Triton's own children, one for each model instance, apart."""
    parts: dict[str, int] = {}
    for process in parent.children(recursive=True):
        try:
            command, resident = process.cmdline(), process.memory_info().rss // 1024
        except psutil.Error:  # it has just ended
            continue
        if "transformer" in command:
            part = "transformer"
        elif "synchroniser" in command:
            part = "synchroniser"
        elif process.name() == "tritonserver":
            part = "tritonserver"
        elif process.name() == "triton_python_backend_stub":
            part = "model instances"
        else:
            continue
        parts[part] = parts.get(part, 0) + resident
    return parts


def ask_state(sync: str, model: str, version: str) -> str:
    """What the synchroniser says of a version; empty where it cannot be asked."""
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
    """The summary for the eye."""
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
    """A chart where matplotlib is installed, which nothing here asks for."""
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
