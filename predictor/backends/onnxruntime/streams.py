"""Runs the requests of a batch beside each other: the threads of one run wait for each other at every layer.

YOLOv8n on two cores of an AMD EPYC (AVX2): 125 ms of CPU time an image in two runs of one thread, 140 to 153 in runs of
two threads, be it one image or four. A single request still gets all threads.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

# Below, passing a request to a thread costs more than what the threads of a run wait for.
SLOW_S = 0.005
# Of a model's file: the second session has the weights once more, and a large layer waits less (6 % for 104 MB).
MOST_BYTES = 64 * 2**20
_RUNS_PER_STREAM = 2  # of those at once, the system shares the cores evenly: three on two cores leave none idle


class Streams:
    """A second session of a model, of fewer threads, which is created once a batch could use it."""

    def __init__(self, create: Callable[[], Any], *, count: int) -> None:
        """Begin without the session.

        Args:
            create: returns it; called in a thread, once.
            count: of its runs that keep all threads of the model busy. A batch of fewer requests would not.
        """
        self._create = create
        self._count = count
        self._pool = ThreadPoolExecutor(_RUNS_PER_STREAM * count, "stream")
        self._session: Future[Any] | None = None
        self._runs = 0
        self._least_s = math.inf

    def observe(self, seconds: float, requests: int) -> None:
        """Take in how long a run of the first session took, and for how many requests."""
        self._runs += 1
        self._least_s = min(self._least_s, seconds / requests)

    def find_session(self, requests: int) -> Any:
        """The session in which to run so many requests beside each other; None: run them as one batch."""
        # The first run allocates its memory, and tells nothing.
        if requests < self._count or self._runs < 2 or self._least_s < SLOW_S:
            return None
        if self._session is None:
            self._session = self._pool.submit(self._create)
        return self._session.result() if self._session.done() and not self._session.exception() else None

    def map(self, function: Callable[[Any], Any], requests: Sequence[Any]) -> list[Any]:
        """Call a function for each request, several at once.

        Returns:
            The results in order, once every call has ended: the requests live in memory that Triton frees.
        """
        futures = [self._pool.submit(function, request) for request in requests]
        wait(futures)
        return [future.result() for future in futures]


def share_threads(config: Mapping[str, Any], path: Path, *, threads: int) -> int:
    """How many threads a run of the second session gets; 0 where such a session cannot help.

    It can where several requests of a small model run in one instance, on the CPU, with several threads.

    Args:
        config: ModelConfig as JSON.
        path: the model's file.
        threads: of a run of the first session.
    """
    instances = sum(max(int(group.get("count", 1)), 1) for group in config["instance_group"]) or 1
    most = int(config["max_batch_size"])
    size = sum(each.stat().st_size for each in path.parent.iterdir() if each.is_file())
    if threads < 2 or instances > 1 or most < 2 or size > MOST_BYTES:
        return 0
    return max(threads // most, 1)
