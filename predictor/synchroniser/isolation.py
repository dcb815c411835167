"""Isolates trials after a crash: only a version that is alone in its trial can be shown to cause one."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Isolation:
    """Runs the trials of all models one at a time while any version is suspected of having crashed a process."""

    def __init__(self) -> None:
        """Begin without suspects."""
        self._suspects: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def suspect(self, model: str, keys: Collection[str]) -> None:
        """Add versions whose trial was in progress when a process before this one ended."""
        self._suspects |= {(model, key) for key in keys}

    def clear(self, model: str, keys: Collection[str]) -> None:
        """Remove versions: their trials ended, or are not due."""
        self._suspects -= {(model, key) for key in keys}

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Run a trial, alone where there are suspects."""
        if not self._suspects:
            yield
            return
        with self._lock:
            yield
