"""What the user reads: lines on standard error, and what became of the frames."""

import time
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

CONSOLE = Console(stderr=True)


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
        latencies_ms: of requests that succeeded, from the first byte sent to the last one read.
        ages_ms: from the moment a frame was read to its result.
        ids: of the tracks.
    """

    read: int = 0
    skipped: int = 0
    dropped: int = 0
    sent: int = 0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def summary(self) -> str:
        """One line."""
        parts = [f"{self.read} frames read", f"{self.dropped} dropped", f"{self.sent} sent", f"{self.failed} failed"]
        if self.skipped:
            parts.insert(1, f"{self.skipped} skipped")
        text = f"{', '.join(parts)}; {len(self.ids)} tracks"
        if self.latencies_ms:
            request = np.percentile(self.latencies_ms, (50, 99))
            age = np.percentile(self.ages_ms, (50, 99))
            text += f"; request p50 {request[0]:.0f} ms, p99 {request[1]:.0f} ms"
            text += f"; frame to result p50 {age[0]:.0f} ms, p99 {age[1]:.0f} ms"
        return f"{text}; {self.sent / max(time.monotonic() - self.began, 1e-3):.1f} frames/s"
