"""`python -m tests.fuzz`: start the stack, send it broken inputs, print what it answered (`make fuzz`)."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.run import Defect, Report, fuzz
from tests.support.stack import ROOT, start_stack

_MIB = 2**20


def main() -> int:
    """Send them; 1 where one was answered as none may be, or the log has a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="how many inputs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other inputs for another number (%(default)s)")
    args = parser.parse_args()
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
                    pid=pid,
                    count=args.count,
                    seed=args.seed,
                    tell=lambda done: progress.update(task, completed=done),
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
