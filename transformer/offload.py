"""Leaves the event loop for a thread where that pays: one thread pool, one unit of cost, one threshold.

A thread and back costs 0.1 ms of a core, and the response waits for it; what blocks the event loop delays every other
request. Work of up to about 0.3 ms therefore runs on the event loop itself. Its cost is estimated in the bytes of JSON
that are parsed in the same time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

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


def set_threads(threads: int) -> ThreadPoolExecutor:
    """Make this many threads the pool of the running event loop; asyncio ends it with the loop."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="offload")
    asyncio.get_running_loop().set_default_executor(pool)
    return pool


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
    cancelled = False

    def run() -> T | None:
        return None if cancelled else function()

    thread = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        return cast(T, await asyncio.shield(thread))  # None only of a function that was cancelled
    except asyncio.CancelledError:
        cancelled = True
        await asyncio.wait([thread])
        raise
