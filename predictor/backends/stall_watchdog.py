"""Ends a process that stalled, before it responds to a request that Triton has abandoned.

Triton's Python backend (24.10) waits a second for the response of a model's process. Then it checks a health flag,
which a thread of that process sets every 0.3 s. A process that stalled meanwhile (no CPU time, a suspended laptop,
SIGSTOP) is given up, and the memory of its request is freed. When it continues, its late response is taken for that of
the next request: Triton crashes, or one client gets the response of another.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INTERVAL_S = 0.1
_STALL_S = 0.7  # of Triton's second, 0.3 may have passed before the stall
_MARGIN_S = 0.3


class StallDetector:
    """Detects whether this process has stalled, by the time between two calls of `update`."""

    def __init__(self, clock: Callable[[], float] = time.time, cpu: Callable[[], float] = time.process_time) -> None:
        """Begin.

        Args:
            clock: the one by which Triton measures its second: time of day, which continues while a machine sleeps.
            cpu: CPU seconds of this process: a busy process has not stalled.
        """
        self._clock, self._cpu = clock, cpu
        self._last = clock(), cpu()
        self._ended_at = -math.inf

    def update(self) -> None:
        """Record that the process runs."""
        now_s, cpu_s = now = self._clock(), self._cpu()
        past_s, past_cpu_s = self._last
        if now_s - past_s >= _STALL_S and cpu_s - past_cpu_s < (now_s - past_s) / 2:
            self._ended_at = time.monotonic()
        self._last = now

    def has_stalled(self, since: float) -> bool:
        """Whether the process stalled after a time, or until just before it: Triton may have given up its requests.

        Args:
            since: by `time.monotonic()`.
        """
        self.update()
        return self._ended_at >= since - _MARGIN_S


class Watchdog:
    """Ends this process after a stall: Triton finds it dead, and the synchroniser has the model loaded again."""

    def __init__(self) -> None:
        """Start the thread that watches the time."""
        self._detector = StallDetector()
        threading.Thread(target=self._run, name="stall-watchdog", daemon=True).start()

    @contextmanager
    def responding(self) -> Iterator[None]:
        """Wrap what responds to requests, with outputs or an error."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._detector.has_stalled(began):
                text = "error: this process stalled, and Triton may have given up its requests; the process ends"
                print(text, file=sys.stderr, flush=True)
                os._exit(1)

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL_S)
            self._detector.update()
