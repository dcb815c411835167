"""Items of a batch to lines: several at the same time, written in their order."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeoutError
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from rich.console import Console
from rich.markup import escape

from environment.error_codes import ErrorCode
from worker.batch.inputs import Inputs, Item
from worker.batch.outputs import Outputs
from worker.errors import Away, Failed, StartError, Stopping, Undeliverable
from worker.holding import hold
from worker.inference import Transformer
from worker.messages import Job

GRACE_S = 10.0  # after a stop, for what is in progress
_LOOK_S = 0.5  # at a stop
_TRIES, _PAUSE_S = 3, 1.0  # of an item at which the server fails
_LISTING_S = 2.0  # before another try to list the input

Lines = list[dict[str, Any]]


class Batch:
    """Predicts items, some at the same time, and keeps their order."""

    def __init__(self, transformer: Transformer, template: Job, *, slots: int, console: Console) -> None:
        """Begin.

        Args:
            transformer: predicts.
            template: model and parameters of each image.
            slots: items at the same time.
            console: where waits are shown.
        """
        self._transformer, self._template = transformer, template
        self._slots, self._console = slots, console
        self._stop_at = 0.0
        self.stopped = threading.Event()

    def run(self, inputs: Inputs, outputs: Outputs) -> Iterator[tuple[int, Lines]]:
        """Write the lines of every item that is left.

        Args:
            inputs: of the batch.
            outputs: of the batch.

        Yields:
            After each item: how many predictions it stands for, and the lines of its failures.

        Raises:
            Stopping: the batch was stopped; what it had, in order, is written.
            Failed: input or output cannot be used.
        """
        pending: deque[tuple[Item, Future[tuple[Lines, Lines]]]] = deque()
        items = self._items(inputs, outputs.progress["after"])
        pool = ThreadPoolExecutor(self._slots, "slot")
        try:
            while True:
                for item in islice(items, 0 if self.stopped.is_set() else 2 * self._slots - len(pending)):
                    pending.append((item, pool.submit(self._predict, item)))
                if not pending:
                    break
                item, future = pending.popleft()
                results, failures = self._wait_for(future)
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
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait_for(self, future: Future[tuple[Lines, Lines]]) -> tuple[Lines, Lines]:
        """The lines of an item; once the batch is stopped only of one that is in progress, for some seconds."""
        while not self.stopped.is_set():
            with suppress(FuturesTimeoutError):
                return future.result(timeout=_LOOK_S)
        self._stop_at = self._stop_at or time.monotonic() + GRACE_S
        if future.cancel():
            raise Stopping
        try:
            return future.result(timeout=max(0.0, self._stop_at - time.monotonic()))
        except FuturesTimeoutError:
            raise Stopping from None

    def _items(self, inputs: Inputs, after: str) -> Iterator[Item]:
        """The items behind a mark; while the input is away, waits for it."""
        while True:
            try:
                for item in inputs.items(after):
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
