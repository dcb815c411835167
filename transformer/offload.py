"""Leaves the event loop for a thread where that pays: one thread pool, one unit of cost, one threshold.

A thread and back costs 0.1 ms, and the response waits for it; what blocks the event loop delays every other
request. Work of up to about 0.3 ms therefore runs on the event loop itself. Its cost is estimated in the bytes of JSON
that are parsed in the same time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

T = TypeVar("T")

INLINE_COST = 2**15  # bytes of JSON parsed in some 0.3 ms
# Costs of other work, measured in the same unit.
MULTIPART_BYTE = 1 / 8  # scanned for boundaries
TENSOR_BYTE = 4  # written as a tensor of a response
JSON_WRITTEN_BYTE = 3  # by a prediction that rounds its numbers
CELL = 2**6  # of a row, checked one by one in Python
ARRAY_VALUE = 1 / 4  # checked by NumPy
CROP = 2**11  # whose class is read from outputs, and written as JSON
CLASS = 4  # of a model, for each crop
ELEMENT = 3  # of a BYTES tensor, counted
ALWAYS = float("inf")


_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


def set_threads(pool: ThreadPoolExecutor) -> ThreadPoolExecutor:
    """Make this the pool of the running event loop; asyncio ends it with the loop."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool)
    _POOLS[loop] = pool
    return pool


def make_threads(threads: int | None = None) -> ThreadPoolExecutor:
    """A pool of so many threads; None: of Python's default."""
    return ThreadPoolExecutor(threads, thread_name_prefix="offload")


async def offload(function: Callable[[], T], *, cost: float) -> T:
    """Run a function, in a thread where it costs more than `INLINE_COST`.

    Cancellation takes effect when the function has ended, since a thread cannot be stopped; a function that still waits
    for a thread then does not run at all.

    Args:
        function: what to run; it has no current request.
        cost: of the function, estimated with the constants of this module.
    """
    if cost <= INLINE_COST:
        return function()
    loop = asyncio.get_running_loop()
    work = _Work(function, loop)
    try:
        # The future is in no variable: it and the frames of its error would keep each other in memory.
        return await work.begin(_POOLS.get(loop) or set_threads(make_threads()))
    except asyncio.CancelledError:
        await work.cancel()
        raise


class _Work(Generic[T]):
    """A function in a thread. `run_in_executor` does the same by way of three futures, and takes 0.06 ms more."""

    def __init__(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self._is_cancelled = False
        self._ended: asyncio.Future[Any] | None = None

    def begin(self, pool: ThreadPoolExecutor) -> asyncio.Future[T]:
        """Have a thread run the function; the future of its result."""
        self._ended = ended = self._loop.create_future()
        pool.submit(self._run)
        return ended

    def _run(self) -> None:
        try:
            outcome = None if self._is_cancelled else self._function()
        except BaseException as exc:  # noqa: BLE001  # raised where the result is awaited
            self._loop.call_soon_threadsafe(self._end, None, exc)
        else:
            self._loop.call_soon_threadsafe(self._end, outcome, None)

    async def cancel(self) -> None:
        """Run the function no more, if it still waits for its thread; else wait for its end."""
        self._is_cancelled = True
        if self._ended is not None:
            self._ended = self._loop.create_future()
            await self._ended

    def _end(self, outcome: T | None, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is None or ended.done():  # cancelled once more
            return
        if self._is_cancelled or error is None:
            ended.set_result(cast(T, outcome))
        else:
            ended.set_exception(error)
