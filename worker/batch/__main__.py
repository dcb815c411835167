"""`nereid batch`: predictions for a folder, a prefix of a bucket or a table, as parts of JSONL."""

import argparse
import csv
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
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
from environment.error_codes import ErrorCode
from worker.batch.inputs import SUFFIXES, Inputs, Item, open_inputs
from worker.batch.outputs import Outputs, open_store
from worker.errors import Away, Failed, StartError, Stopping, Undeliverable
from worker.holding import hold
from worker.inference import Transformer
from worker.messages import Job

_MOST_BYTES = 20 * 2**20
_TIMEOUT_S = 60.0
_TRIES, _PAUSE_S = 3, 1.0  # of an item at which the server fails
_LISTING_S = 2.0  # before another try to list the input

Lines = list[dict[str, Any]]


class Batch:
    """Predicts items, some at the same time, and keeps their order."""

    def __init__(
        self, inputs: Inputs, transformer: Transformer, template: Job, *, slots: int, console: Console
    ) -> None:
        """Begin.

        Args:
            inputs: of the batch.
            transformer: predicts.
            template: model and parameters of each image.
            slots: items at the same time.
            console: where waits are shown.
        """
        self._inputs, self._transformer, self._template = inputs, transformer, template
        self._slots, self._console = slots, console
        self.stopped = threading.Event()

    def run(self, outputs: Outputs) -> Iterator[tuple[int, Lines]]:
        """Write the lines of every item that is left.

        Args:
            outputs: of the batch.

        Yields:
            After each item: how many predictions it stands for, and the lines of its failures.

        Raises:
            Stopping: the batch was stopped; what it had is written.
            Failed: input or output cannot be used.
        """
        pending: deque[tuple[Item, Future[tuple[Lines, Lines]]]] = deque()
        items = self._items(outputs.progress["after"])
        with ThreadPoolExecutor(self._slots, "slot") as pool:
            try:
                while True:
                    for item in islice(items, 0 if self.stopped.is_set() else 2 * self._slots - len(pending)):
                        pending.append((item, pool.submit(self._predict, item)))
                    if not pending:
                        break
                    item, future = pending.popleft()
                    results, failures = future.result()
                    outputs.add(results, failures, mark=item.mark)
                    yield item.size, failures
                if self.stopped.is_set():
                    raise Stopping
                outputs.flush(is_last=True)
            except BaseException:
                outputs.flush()  # what there is until here
                raise
            finally:
                self.stopped.set()  # what waits for a server ends
                for _, future in pending:
                    future.cancel()

    def _items(self, after: str) -> Iterator[Item]:
        """The items behind a mark; while the input is away, waits for it."""
        while True:
            try:
                for item in self._inputs.items(after):
                    yield item
                    after = item.mark
            except Away as exc:
                self._show_wait(exc, _LISTING_S)
                if self.stopped.wait(_LISTING_S):
                    raise Stopping from exc
            else:
                return

    def hold(self, call: Any) -> Any:
        """Call a function until nothing that it needs is away; raises `Stopping`."""
        return hold(call, stopped=self.stopped, waiting=self._show_wait)

    def _show_wait(self, why: Away, pause_s: float) -> None:
        self._console.print(f"[yellow]waiting {pause_s:.1f} s:[/] {escape(str(why))}", soft_wrap=True, highlight=False)

    def _predict(self, item: Item) -> tuple[Lines, Lines]:
        try:
            return (self._predict_rows(item) if item.read is None else self._predict_image(item, item.read)), []
        except Undeliverable as exc:
            if exc.code == ErrorCode.MODEL_NOT_FOUND:  # nothing of the batch can succeed
                raise StartError(str(exc)) from exc
            if len(item.rows) > 1:  # one of them: which?
                return self._predict_each(item)
            code, reason = exc.code, str(exc)
        except Failed as exc:
            code, reason = "failed", str(exc)
        line = {"input": item.name, "code": code, "error": reason}
        return [], [{**line, "row": item.first_row + index} for index in range(len(item.rows))] or [line]

    def _predict_image(self, item: Item, read: Callable[[], tuple[bytes, str]]) -> Lines:
        image, etag = self._try(read)
        document = self._try(lambda: self._transformer.predict(self._template, image, request_id="batch"))
        return [{"input": item.name, "etag": etag, **document}]

    def _predict_rows(self, item: Item) -> Lines:
        document = self._try(lambda: self._transformer.predict_rows(self._template.model, item.rows))
        predictions = document["predictions"]
        return [
            {"input": item.name, "row": item.first_row + index, "model": document["model"], "prediction": prediction}
            for index, prediction in enumerate(predictions)
        ]

    def _predict_each(self, item: Item) -> tuple[Lines, Lines]:
        results: Lines = []
        failures: Lines = []
        for index, row in enumerate(item.rows):
            done, failed = self._predict(replace(item, rows=(row,), first_row=item.first_row + index))
            results += done
            failures += failed
        return results, failures

    def _try(self, call: Any) -> Any:
        for _ in range(_TRIES - 1):
            try:
                return self.hold(call)
            except Failed:
                if self.stopped.wait(_PAUSE_S):
                    raise Stopping from None
        return self.hold(call)


def main() -> int:
    """Run a batch; 1 where an input has no result, 2 where the batch cannot begin, 130 after Ctrl-C."""
    options = _parse()
    console = Console(stderr=True)
    try:
        parameters = parse_qs(options.parameters, strict_parsing=True) if options.parameters else {}
        inputs = open_inputs(options.input, together=options.slots, most_bytes=_MOST_BYTES)
        transformer = Transformer(options.url, timeout_s=_TIMEOUT_S, together=options.slots)
        batch = Batch(inputs, transformer, Job(b"", options.model, parameters), slots=options.slots, console=console)

        def stop(number: int, _: object) -> None:
            batch.stopped.set()
            signal.signal(number, signal.SIG_DFL)  # the next one ends the process; what is written stays
            print("stopping: what is in progress is finished; again to end at once", file=sys.stderr, flush=True)

        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, stop)
        request = {"input": options.input, "model": options.model, "parameters": parameters}
        store = open_store(options.output)
        with TemporaryDirectory(prefix="nereid-batch-") as folder:
            outputs = Outputs(store, request, folder=Path(folder), lines=options.lines, hold=batch.hold)
            return _show(batch, inputs, outputs, console, options)
    except Stopping:
        console.print("stopped; the same command goes on where it was")
        return 130
    except OSError as exc:
        console.print(
            f"[bold red]error:[/] {escape(f'{exc.filename or options.output}: {exc.strerror}')}", soft_wrap=True
        )
        return 2
    except (StartError, Failed, Undeliverable, api_key.AccessError, csv.Error, httpx.InvalidURL, ValueError) as exc:
        console.print(f"[bold red]error:[/] {escape(str(exc))}", soft_wrap=True, highlight=False)
        return 2


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
        for size, failures in batch.run(outputs):
            reasons.update(f"{each['code']}: {each['error']}"[:200] for each in failures)
            elapsed = progress.tasks[task].elapsed or 1.0
            done = progress.tasks[task].completed + size
            progress.update(task, advance=size, rate=f"{(done - before) / elapsed:.1f}/s")
    found = outputs.progress
    table = Shown("", "number", "in")
    where = escape(options.output)
    table.add_row("results", str(found["results"]), f"{where}/part-*.jsonl ({found['part']})")
    table.add_row("failures", str(found["failures"]), f"{where}/failed-*.jsonl ({found['failed']})")
    console.print(table)
    for reason, number in reasons.most_common(5):
        console.print(f"{number} x {reason}", soft_wrap=True, highlight=False, markup=False)
    return 1 if found["failures"] else 0


def _parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog=program("worker.batch"), description=__doc__)
    parser.add_argument("input", metavar="INPUT", help="s3://bucket/prefix, a folder with images, or a .csv file")
    parser.add_argument("output", metavar="OUTPUT", help="s3://bucket/prefix or a folder, of this batch alone")
    parser.add_argument("model", metavar="MODEL", help="its name")
    parser.add_argument(
        "--url", type=_url, default="http://localhost:8080", help="of the server (default: %(default)s)"
    )
    parser.add_argument("--parameters", default="", help="of each request, as a query: 'confidence=0.5&iou=0.6'")
    parser.add_argument("--lines", type=count, default=1000, help="of a part of the output (default: %(default)s)")
    parser.add_argument("--slots", type=count, default=8, help="requests at the same time (default: %(default)s)")
    return parser.parse_args(words)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected http://host:port or https://...")
    return text


if __name__ == "__main__":
    sys.exit(main())
