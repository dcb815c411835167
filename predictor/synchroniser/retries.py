"""When a model is reconciled again after a failure.

When a version is tried again is in `verdicts.py`, how often in `ledger.MAX_ATTEMPTS`.
"""

import logging
from collections.abc import Callable

from predictor.synchroniser.errors import describe, is_transient
from predictor.synchroniser.metrics import Metrics

log = logging.getLogger("synchroniser")

_DEFECT_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 60.0


def pause_after(failures: int, *, poll_s: float) -> float:
    """Return the seconds before the next attempt: the interval of listings, doubled with each failure, to a minute."""
    return float(min(max(poll_s, 1.0) * 2 ** min(failures - 1, 16), _LONGEST_PAUSE_S))


class Retries:
    """The failures of one model, and its next attempt.

    Attributes:
        failures: how many in a row.
        due_at: monotonic time of the next attempt; None where none is due.
        error: what keeps the model from what the repository wants, for `/status`.
        has_defect: whether the last attempt ended in a defect of this program.
    """

    def __init__(self, model: str, *, metrics: Metrics, poll_s: float, clock: Callable[[], float]) -> None:
        """Begin without failures.

        Args:
            model: its name.
            metrics: of the synchroniser.
            poll_s: interval of listings, with which pauses begin.
            clock: monotonic time.
        """
        self.failures = 0
        self.due_at: float | None = None
        self.error: str | None = None
        self.has_defect = False
        self._model, self._metrics, self._poll_s, self._clock = model, metrics, poll_s, clock

    @property
    def is_due(self) -> bool:
        """Whether the time of the next attempt has come."""
        return self.due_at is not None and self._clock() >= self.due_at

    def succeed(self, error: str | None = None) -> None:
        """Record a success, and what is wrong all the same."""
        self.failures, self.error = 0, error

    def fail(self, exc: Exception) -> None:
        """Record a failure, and schedule the next attempt: the pauses grow."""
        self.failures += 1
        self.has_defect = not is_transient(exc)
        if self.has_defect:
            pause_s = _DEFECT_PAUSE_S
            text = f"a fault of the synchroniser, see its log: {type(exc).__name__}: {exc}"
        else:
            pause_s, text = pause_after(self.failures, poll_s=self._poll_s), describe(exc)
        self.due_at = self._clock() + pause_s
        self.error = f"{text}; tried again in {pause_s:.0f} s"
        self._metrics.failures.labels(self._model).inc()
        log.warning("%s: %s", self._model, self.error, exc_info=exc if self.has_defect else None)
