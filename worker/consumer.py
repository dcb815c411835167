"""Takes messages from the queue, a slot each, until it is stopped; nothing is lost, and no result is written twice.

A message is deleted once its results are written, so one whose worker died is delivered again: its result has the same
name, and S3 takes it once. While S3, SQS or the transformer is away, messages in progress are held, and no others are
received: an outage costs no message one of the deliveries after which SQS moves it to the dead-letter queue.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from worker.errors import Away, Failed, Stopping, Undeliverable
from worker.holding import hold
from worker.metrics import Metrics
from worker.queue import MOST, Message, Queue
from worker.settings import Settings

log = logging.getLogger("worker")

_PAUSE_S = 0.5
_GATHER_S = 0.05  # that a free slot waits for others
_LAST_REFRESH_S = 1.0
_COUNT_S = 15.0  # between two counts of the queue
_FIRST_DELAY_S, _LONGEST_DELAY_S = 5, 900  # of a message that failed, doubled at each delivery

T = TypeVar("T")
_Work = Callable[[Message, Callable[[Callable[[], Any]], Any]], None]


class Consumer:
    """The messages of one worker."""

    def __init__(self, queue: Queue, work: _Work, metrics: Metrics, settings: Settings) -> None:
        """Nothing is received yet.

        Args:
            queue: of the messages.
            work: does what a message requests. It calls what may raise `Away` by the function that it is given, which
                tries again until it succeeds.
            metrics: of the worker.
            settings: slots and times.
        """
        self._queue, self._work, self._metrics, self._settings = queue, work, metrics, settings
        self._pool = ThreadPoolExecutor(settings.slots, "slot")
        self._held: dict[str, Message] = {}  # in a slot, by receipt
        self._hidden: dict[str, Message] = {}  # of these, what other workers may not get
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._ended = threading.Event()
        metrics.oldest.set_function(self._age_of_oldest)
        metrics.in_progress.set_function(lambda: len(self._held))

    def stop(self) -> None:
        """Receive no more messages; may be called by a handler of signals."""
        self._stopped.set()

    def run(self) -> None:
        """Work until `stop`, and then for at most the seconds of grace on what is in progress; give back the rest."""
        refresher = threading.Thread(target=self._refresh, name="refresh", daemon=True)
        refresher.start()
        while not self._stopped.is_set():
            if free := self._wait_for_slots():
                self._receive(free)
        with self._changed:
            self._changed.wait_for(lambda: not self._held, timeout=self._settings.grace_s)
            left = list(self._hidden.values())
        self._ended.set()
        refresher.join(_LAST_REFRESH_S)
        self._give_back(left)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def hold(self, call: Callable[[], T]) -> T:
        """Call a function until nothing that it needs is away.

        Raises:
            Stopping: the worker stops meanwhile.
        """
        return hold(call, stopped=self._stopped, waiting=self._wait)

    def _wait(self, why: Away, pause_s: float) -> None:
        log.warning("%s; tried again in %.1f s", why, pause_s)
        self._metrics.waits.inc()

    def _wait_for_slots(self) -> int:
        """Free slots; of a busy worker not the first one at once but some together, for SQS is paid by the request."""
        together = min(MOST, (self._settings.slots + 1) // 2)
        with self._changed:
            self._changed.wait_for(lambda: self._free() > 0 or self._stopped.is_set(), timeout=1)
            if self._free():
                self._changed.wait_for(lambda: self._free() >= together or self._stopped.is_set(), timeout=_GATHER_S)
            return self._free()

    def _free(self) -> int:
        return self._settings.slots - len(self._held)

    def _receive(self, free: int) -> None:
        try:
            messages = self._queue.receive(min(free, MOST), wait_s=self._settings.wait_s)
        except (Away, Failed) as exc:
            log.warning("%s; tried again in %.1f s", exc, _PAUSE_S)
            self._stopped.wait(_PAUSE_S)
            return
        if self._stopped.is_set():
            self._give_back(messages)
            return
        for message in messages:
            self._metrics.ages.observe(max(time.time() - message.sent_s, 0))
            with self._changed:
                self._held[message.receipt] = self._hidden[message.receipt] = message
            self._pool.submit(self._process, message)

    def _process(self, message: Message) -> None:
        try:
            outcome = self._finish(message)
        except Stopping:
            self._give_back([message])
            return
        except Exception:  # a defect of ours: it must not cost the slot; the message is delivered again
            log.exception("%s failed", message.identifier)
            outcome = "failed"
        finally:
            with self._changed:
                self._held.pop(message.receipt, None)
                self._hidden.pop(message.receipt, None)
                self._changed.notify_all()
        self._metrics.messages.labels(outcome).inc()

    def _finish(self, message: Message) -> str:
        """Do what a message requests, and what then has to be done with it; returns what became of it."""
        try:
            self._work(message, self.hold)
        except Undeliverable as exc:
            return self._bury(message, exc.code, str(exc))
        except Stopping:
            raise
        except Exception as exc:
            if not isinstance(exc, Failed):
                log.exception("%s: a defect of the worker", message.identifier)
            if 0 < self._queue.most_receives <= message.receives:
                return self._bury(message, "failed", f"delivered {message.receives} times: {exc}")
            delay_s = min(_FIRST_DELAY_S * 2 ** (message.receives - 1), _LONGEST_DELAY_S)
            log.warning("%s: %s; delivered again in %d s", message.identifier, exc, delay_s)
            self._hidden.pop(message.receipt, None)
            self._end(lambda: self._queue.hide([message], seconds=delay_s))
            return "failed"
        self._end(lambda: self._queue.delete(message))
        return "done"

    def _bury(self, message: Message, code: str, reason: str) -> str:
        log.warning("%s: to the dead-letter queue: %s: %s", message.identifier, code, reason)
        try:
            self.hold(lambda: self._queue.send_dead(message, code, reason))
        except Failed as exc:  # kept: it is delivered again
            log.warning("%s", exc)
            return "failed"
        self._end(lambda: self._queue.delete(message))
        return "dead_letter"

    def _end(self, call: Callable[[], object]) -> None:
        try:
            self.hold(call)
        except Failed as exc:  # the message is delivered again, and ends then
            log.warning("%s", exc)

    def _give_back(self, messages: list[Message]) -> None:
        if not messages:
            return
        for message in messages:
            self._hidden.pop(message.receipt, None)
        try:
            problems = self._queue.hide(messages, seconds=0)
        except (Away, Failed) as exc:  # they are delivered again when their time is over
            problems = [str(exc)]
        for problem in problems:
            log.warning("giving back: %s", problem)
        self._metrics.messages.labels("given_back").inc(len(messages))
        log.info("gave back %d messages", len(messages))

    def _refresh(self) -> None:
        """Hide what is in progress again and again, and count the queue, until the worker has ended."""
        refreshed, counted = time.monotonic(), -_COUNT_S
        refresh_s = self._settings.visibility_s / 3
        while not self._ended.wait(min(refresh_s, _COUNT_S) / 4):
            now = time.monotonic()
            try:
                if now - refreshed >= refresh_s:
                    for problem in self._queue.hide(list(self._hidden.values())):
                        log.info("not hidden: %s", problem)
                    refreshed = now
                if now - counted >= _COUNT_S:
                    counted = now
                    for state, number in self._queue.count().items():
                        self._metrics.queue.labels(state).set(number)
            except (Away, Failed) as exc:
                log.warning("%s", exc)
            except Exception:  # without this thread other workers would get what is in progress
                log.exception("the refresh failed")

    def _age_of_oldest(self) -> float:
        return max((time.time() - each.sent_s for each in list(self._held.values())), default=0.0)
