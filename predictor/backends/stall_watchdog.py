"""A process that stood still must not answer.

Triton's Python backend (24.10) waits a second for the answer of a model's process. Then it looks whether that lives, of
which a thread of its own says so every 0.3 s. One that stood still meanwhile (a machine without time for it, a laptop
that slept, SIGSTOP) is given up with the memory of its request, but goes on once it can: its late answer is taken for
that of the next request. Triton dies of it, or gives one request the answer of another.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_BEAT_S = 0.1
_STILL_S = 0.7  # of the second 0.3 may be over when it begins
_JUST_S = 0.3


class Pulse:
    """Notes whether this process stands still."""

    def __init__(self, clock: Callable[[], float] = time.time, cpu: Callable[[], float] = time.process_time) -> None:
        """Begin.

        Args:
            clock: what Triton measures its second by: the time of day, which goes on in a machine that sleeps.
            cpu: seconds that this process has worked: what holds up its threads is no standstill.
        """
        self._clock, self._cpu = clock, cpu
        self._last = clock(), cpu()
        self._ended_at = -math.inf

    def beat(self) -> None:
        """The process runs."""
        now_s, cpu_s = now = self._clock(), self._cpu()
        past_s, past_cpu_s = self._last
        if now_s - past_s >= _STILL_S and cpu_s - past_cpu_s < (now_s - past_s) / 2:
            self._ended_at = time.monotonic()
        self._last = now

    def stood_still(self, since: float) -> bool:
        """Whether it did so since, or until just before: what waited for it meanwhile may be given up.

        Args:
            since: by `time.monotonic()`.
        """
        self.beat()
        return self._ended_at >= since - _JUST_S


class Guard:
    """Ends a process that stood still: Triton finds it dead, and the synchroniser has the model loaded anew."""

    def __init__(self) -> None:
        self._pulse = Pulse()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around what answers requests, or fails them."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._pulse.stood_still(began):
                text = "error: this process stood still, and Triton may have given its requests up; it ends"
                print(text, file=sys.stderr, flush=True)
                os._exit(1)

    def _run(self) -> None:
        while True:
            time.sleep(_BEAT_S)
            self._pulse.beat()
