"""`nereid batch`: predictions for a folder, a prefix of a bucket or a table, as parts of JSONL or Parquet."""

import argparse
import csv
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Shown

from environment import api_key
from environment.arguments import Parser, count, program
from worker.batch.inputs import SUFFIXES, Inputs, is_table, open_inputs
from worker.batch.outputs import Form, Outputs, open_store
from worker.batch.parquet import Columns, require
from worker.batch.scoring import GRACE_S, Batch
from worker.errors import Failed, StartError, Stopping, Undeliverable
from worker.inference import Transformer
from worker.messages import Job

JSONL, PARQUET = "jsonl", "parquet"
_ERROR = "[bold red]error:[/] "
_MOST_BYTES = 20 * 2**20
_TIMEOUT_S = 60.0


def main() -> int:
    """Run a batch; 1 where an input has no result, 2 where the batch cannot begin, 130 after Ctrl-C."""
    options = _parse()
    console = Console(stderr=True)
    try:
        return _run(options, console)
    except Stopping:
        status, said = 130, "stopped; the same command goes on where it was"
    except OSError as exc:
        status, said = 2, _ERROR + escape(f"{exc.filename or options.output}: {exc.strerror}")
    except (StartError, Failed, Undeliverable, api_key.AccessError, csv.Error, httpx.InvalidURL, ValueError) as exc:
        status, said = 2, _ERROR + escape(str(exc))
    console.print(said, soft_wrap=True, highlight=False)
    os._exit(status)  # a request in progress would keep the process for a minute


def _run(options: argparse.Namespace, console: Console) -> int:
    parameters = parse_qs(options.parameters, strict_parsing=True) if options.parameters else {}
    transformer = Transformer(options.url, timeout_s=_TIMEOUT_S, together=options.slots)
    batch = Batch(transformer, Job(b"", options.model, parameters), slots=options.slots, console=console)

    def stop(number: int, _: object) -> None:
        batch.stopped.set()
        signal.signal(number, signal.SIG_DFL)  # the next one ends the process; what is written stays
        print(f"stopping: what is in progress has {GRACE_S:.0f} s; again to end at once", file=sys.stderr, flush=True)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    model = _describe(batch, transformer, options)
    inputs = open_inputs(options.input, together=options.slots, most_bytes=_MOST_BYTES, words=_words_of(model))
    columns = None
    if options.format == PARQUET:
        columns = Columns(batch.hold(transformer.describe_server), model["parameters"]["task"])
    request = {
        "input": options.input, "model": options.model, "parameters": parameters, "format": options.format,
        **({"columns": columns.version} if columns else {}),
    }  # fmt: skip
    store = open_store(options.output)
    with TemporaryDirectory(prefix="nereid-batch-") as folder, store.locked(batch.hold, stopped=batch.stopped):
        outputs = Outputs(store, request, folder=Path(folder), form=Form(options.lines, columns), hold=batch.hold)
        return _show(batch, inputs, outputs, console, options)


def _describe(batch: Batch, transformer: Transformer, options: argparse.Namespace) -> Mapping[str, Any]:
    """The metadata of the model, where it decides something."""
    if options.format == PARQUET:
        require()
    elif not is_table(options.input):
        return {}
    found: Mapping[str, Any] = batch.hold(lambda: transformer.describe(options.model))
    return found


def _words_of(model: Mapping[str, Any]) -> set[str]:
    """The columns that are words for a model: each is an input of its own."""
    return {each["name"] for each in model.get("inputs", []) if each["datatype"] == "BYTES"}


def _show(batch: Batch, inputs: Inputs, outputs: Outputs, console: Console, options: argparse.Namespace) -> int:
    before = outputs.progress["results"] + outputs.progress["failures"]
    if before:
        console.print(f"goes on behind {escape(outputs.progress['after'])}: {before} are done", highlight=False)
    left = batch.hold(lambda: inputs.count(outputs.progress["after"]))
    if not before and left == 0:
        raise StartError(
            f"INPUT: {options.input} has nothing for a model; expected rows, or {', '.join(sorted(SUFFIXES))}"
        )
    reasons: Counter[str] = Counter()
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(
            options.model, total=None if left is None else before + left, completed=before, rate=""
        )
        for size, failures in batch.run(inputs, outputs):
            reasons.update(f"{each['code']}: {each['error']}"[:200] for each in failures)
            elapsed = progress.tasks[task].elapsed or 1.0
            done = progress.tasks[task].completed + size
            progress.update(task, advance=size, rate=f"{(done - before) / elapsed:.1f}/s")
    found = outputs.progress
    table = Shown("", "number", "in")
    where = escape(options.output)
    table.add_row("results", str(found["results"]), f"{where}/part-*.{options.format} ({found['part']})")
    table.add_row("failures", str(found["failures"]), f"{where}/failed-*.jsonl ({found['failed']})")
    console.print(table)
    for reason, number in reasons.most_common(5):
        console.print(f"{number} x {reason}", soft_wrap=True, highlight=False, markup=False)
    return 1 if found["failures"] else 0


def _parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog=program("worker.batch"), description=__doc__)
    parser.add_argument("input", metavar="INPUT", help="s3://bucket/prefix, a folder with images, a .csv or .parquet")
    parser.add_argument("output", metavar="OUTPUT", help="s3://bucket/prefix or a folder, of this batch alone")
    parser.add_argument("model", metavar="MODEL", help="its name")
    parser.add_argument(
        "--url", type=_url, default="http://localhost:8080", help="of the server (default: %(default)s)"
    )
    parser.add_argument("--parameters", default="", help="of each request, as a query: 'confidence=0.5&iou=0.6'")
    parser.add_argument(
        "--format", choices=(JSONL, PARQUET), default=JSONL, help="of the output (default: %(default)s)"
    )
    parser.add_argument("--lines", type=count, default=1000, help="of a part of the output (default: %(default)s)")
    parser.add_argument("--slots", type=count, default=8, help="requests at the same time (default: %(default)s)")
    return parser.parse_args(words)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected http://host:port or https://...")
    return text


if __name__ == "__main__":
    sys.exit(main())
