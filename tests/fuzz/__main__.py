"""Invalid inputs by the hundred thousand: sent to the stack (make fuzz), or put into the bucket (make fuzz-bucket)."""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from registry.errors import RepositoryError
from tests.fuzz import bucket
from tests.fuzz.run import Defect, Report, fuzz
from tests.support.stack import ROOT, start_stack

_MIB = 2**20


def main() -> int:
    """Send or validate inputs; 1 where one shows a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("where", nargs="?", choices=["front", "bucket"], default="front", help="(%(default)s)")
    parser.add_argument("--count", type=int, default=100_000, help="number of inputs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs (%(default)s)")
    parser.add_argument("--models", type=int, default=60, help="models of a fresh stack (bucket only, %(default)s)")
    args = parser.parse_args()
    return fuzz_bucket(args) if args.where == "bucket" else fuzz_front(args)


def fuzz_bucket(args: argparse.Namespace) -> int:
    """Validate mutated versions, then start a stack whose models have one as their newest version."""
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("mutated versions", total=args.count)
            report = bucket.fuzz(
                count=args.count, seed=args.seed, report_progress=lambda done: progress.update(task, completed=done)
            )
    except (bucket.Escape, RepositoryError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    table = Table("file", "inputs", "verdicts", "reasons", "slowest ms of CPU")
    for name, kind in sorted(report.kinds.items()):
        verdicts = ", ".join(f"{verdict}: {count}" for verdict, count in sorted(kind.verdicts.items()))
        total = str(sum(kind.verdicts.values()))
        table.add_row(name, total, verdicts, str(len(kind.reasons)), f"{kind.slowest_ms:.0f}")
    console.print(table)
    console.print(f"largest process: {report.memory_bytes / _MIB:.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        names = bucket.spoil(repository, count=args.models, seed=args.seed)
        console.print(f"a fresh stack with {len(names)} models, the newest version of each mutated")
        with start_stack(repository, Path(folder) / "log", variables={"POLL_S": "1", "SETTLE_S": "1"}) as stack:
            status = stack.http.get("/status").raise_for_status().json()["models"]
        served = Counter(", ".join(status[name]["serving"]) or "none" for name in names)
    console.print("serving: " + ", ".join(f"version {version}: {count}" for version, count in sorted(served.items())))
    return int("none" in served)


def fuzz_front(args: argparse.Namespace) -> int:
    """Send invalid requests; 1 where a response shows a defect, or the log has a traceback."""
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            start_stack(ROOT / "model_repository", log) as stack,
            Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        ):
            task = progress.add_task("broken inputs", total=args.count)
            pid = stack.part("transformer").pid
            try:
                report = fuzz(
                    stack.http_port,
                    stack.grpc_port,
                    pid=pid,
                    count=args.count,
                    seed=args.seed,
                    report_progress=lambda done: progress.update(task, completed=done),
                )
            except Defect as exc:
                progress.stop()
                kept = ROOT / "output" / "fuzz.log"
                kept.parent.mkdir(exist_ok=True)
                shutil.copy(log, kept)
                print(f"error: {exc}; the log is in {kept.relative_to(ROOT)}", file=sys.stderr)
                return 1
        traceback = "Traceback" in log.read_text(errors="replace")
    console.print(_table(report))
    last = len(report.memory_bytes) - 1
    fifths = ", ".join(f"{report.memory_bytes[last * part // 5] / _MIB:.0f}" for part in range(6))
    console.print(f"memory in MiB, before and after each fifth: {fifths}")
    if traceback:
        print("error: the log has a traceback", file=sys.stderr)
    return int(traceback)


def _table(report: Report) -> Table:
    table = Table("route", "inputs", "statuses", "slowest ms")
    for name, route in sorted(report.routes.items()):
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(route.statuses.items()))
        table.add_row(name, str(sum(route.statuses.values())), statuses, f"{route.slowest_ms:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
