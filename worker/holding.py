"""Waiting for what is away."""

import threading
from collections.abc import Callable
from typing import TypeVar

from worker.errors import Away, Stopping

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0

T = TypeVar("T")


def hold(
    call: Callable[[], T], *, stopped: threading.Event, waiting: Callable[[Away, float], None] = lambda *_: None
) -> T:
    """Call a function until nothing that it needs is away.

    Args:
        call: may raise `Away`.
        stopped: ends the waiting.
        waiting: called before each pause: why, and for how many seconds.

    Raises:
        Stopping: `stopped` was set meanwhile.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Away as exc:
            wait_s = exc.retry_s or pause_s
            waiting(exc, wait_s)
            if stopped.wait(wait_s):
                raise Stopping from exc
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
