"""A workaround for Triton before 25.04, which may die of a call that is cancelled while Triton processes it.

It also limits how many inference calls to such a Triton are in progress.

Issues 7368 and 8034 of triton-inference-server/server; seen of 2.51 after some 1500 such calls; fixed by its pull
request 8078. Delete this module when the oldest supported Triton is 2.57.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from transformer.admission import Deadline
from transformer.errors import MemoryFull, PredictorTimeout
from transformer.observability import metrics

# Abandoned calls keep their tensors in memory: both are limited.
MAX_CALLS = 64
MAX_ABANDONED_BYTES = 2**28
HANGING_S = 60.0  # behind its deadline an abandoned call may take this long; more is a Triton that hangs
_CLOSE_TIMEOUT_S = 5.0
_SURVIVES_CANCELLATION = (2, 57)


def survives_cancellation(version: tuple[int, ...]) -> bool:
    """Whether calls to a Triton of this version may be cancelled."""
    return version >= _SURVIVES_CANCELLATION


class UncancelledCalls:
    """Calls that end when Triton responds, however long the caller waits.

    Attributes:
        abandoned_bytes: tensors of calls whose caller no longer waits.
    """

    def __init__(self, *, max_calls: int = MAX_CALLS, max_abandoned_bytes: int = MAX_ABANDONED_BYTES) -> None:
        self._triton_call_slots = asyncio.Semaphore(max_calls)
        self._max_abandoned_bytes = max_abandoned_bytes
        self._calls: set[asyncio.Task[Any]] = set()
        self.abandoned_bytes = 0

    async def close(self) -> None:
        """Wait a few seconds for the calls in progress."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CLOSE_TIMEOUT_S)

    async def run(
        self, call: Callable[[], Coroutine[Any, Any, Any]], *, name: str, deadline: Deadline, size_bytes: int
    ) -> Any:
        """Wait for a call until the deadline or until cancelled, then abandon it: it keeps its slot until it ends.

        Args:
            call: begins the call.
            name: of the model.
            deadline: of the request.
            size_bytes: of its tensors.

        Raises:
            PredictorTimeout: no response in time.
            MemoryFull: abandoned calls hold too much memory.
        """
        if self.abandoned_bytes > self._max_abandoned_bytes:
            metrics.count_rejected("bodies full")
            raise MemoryFull(
                f"abandoned requests: Triton still processes {self.abandoned_bytes} bytes of them, over the limit of"
                f" {self._max_abandoned_bytes}"
            )
        task = None
        try:
            async with asyncio.timeout(max(deadline.remaining_s, 0)):
                await self._triton_call_slots.acquire()
                task = asyncio.create_task(call())
                self._calls.add(task)
                task.add_done_callback(self._end)
                return await asyncio.shield(task)
        except TimeoutError:
            raise PredictorTimeout(f"model {name!r}: no response in {deadline.timeout_s:g} s") from None
        finally:
            if task is not None and not task.done():
                self.abandoned_bytes += size_bytes
                task.add_done_callback(partial(self._release_bytes, size_bytes))

    def _release_bytes(self, size_bytes: int, _: asyncio.Task[Any]) -> None:
        self.abandoned_bytes -= size_bytes

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._triton_call_slots.release()
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio logs an error that was never retrieved
