"""Whether clients send requests: what may slow them down waits until none do."""

import time
from collections.abc import Callable, Mapping

from predictor.synchroniser.triton_client import Requests
from predictor.triton_conventions import CANDIDATE_PREFIX


class Traffic:
    """Written by the loop's thread, read by those of the models."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin as if a request had just come."""
        self._clock = clock
        self._counts: dict[str, Requests] = {}
        self._last = clock()

    def note(self, counts: Mapping[str, Requests]) -> None:
        """Take Triton's counts: where one has changed, a request came just now."""
        served = {name: count for name, count in counts.items() if not name.startswith(CANDIDATE_PREFIX)}
        if served != self._counts:
            self._counts, self._last = served, self._clock()

    def note_unknown(self) -> None:
        """Take it that requests come: Triton gives no counts, perhaps because it has too many."""
        self._last = self._clock()

    @property
    def quiet_s(self) -> float:
        """Seconds without a request."""
        return self._clock() - self._last
