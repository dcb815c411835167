"""What the user reads: lines on standard error, and what became of the frames."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

CONSOLE = Console(stderr=True)
_LATEST = 10_000  # requests and tracks that are remembered: a camera runs for weeks


class TrackError(Exception):
    """What a user can change; the message says what, got, expected and the next step."""


def say(text: str) -> None:
    """One line for the user, beside what is written to standard output."""
    CONSOLE.print(text, highlight=False, markup=False, soft_wrap=True)


@dataclass
class Counts:
    """What became of the frames.

    Attributes:
        read: decoded; of these `skipped` by `--fps`, `dropped` because a newer one came, `sent`, or `failed`.
        latencies_ms: of the latest requests that succeeded, from the first byte sent to the last one read.
        ages_ms: of the latest results, from the moment a frame was read.
        tracks: how many there were.
    """

    read: int = 0
    skipped: int = 0
    dropped: int = 0
    sent: int = 0
    failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))
    tracks: int = 0
    _latest_ids: dict[int, None] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add_tracks(self, ids: Iterable[int]) -> None:
        """Count those that are new; of `trackers`, which uses no number twice."""
        for number in ids:
            if number not in self._latest_ids:
                self.tracks += 1
            self._latest_ids.pop(number, None)
            self._latest_ids[number] = None
        while len(self._latest_ids) > _LATEST:
            del self._latest_ids[next(iter(self._latest_ids))]

    def summary(self) -> str:
        """One line."""
        parts = [f"{self.read} frames read", f"{self.dropped} dropped", f"{self.sent} sent", f"{self.failed} failed"]
        if self.skipped:
            parts.insert(1, f"{self.skipped} skipped")
        text = f"{', '.join(parts)}; {self.tracks} tracks"
        if self.latencies_ms:
            request = np.percentile(self.latencies_ms, (50, 99))
            age = np.percentile(self.ages_ms, (50, 99))
            text += f"; request p50 {request[0]:.0f} ms, p99 {request[1]:.0f} ms"
            text += f"; frame to result p50 {age[0]:.0f} ms, p99 {age[1]:.0f} ms"
        return f"{text}; {self.sent / max(time.monotonic() - self.began, 1e-3):.1f} frames/s"
