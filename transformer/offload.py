"""Where a piece of work runs: in a thread what takes a while, on the event loop what takes less than the way there."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")

# Work of some 0.3 ms or less; a thread and back costs 0.1 ms of a core, and the answer waits for both.
LITTLE_JSON_BYTES = 2**15
LITTLE_PICTURE_BYTES = 2**18  # only looked through for where a part begins
LITTLE_ANSWER_BYTES = 2**13  # as tensors
FEW_PREDICTIONS = 32
FEW_VALUES = 2**9  # of rows, looked at one by one
LITTLE_ARRAY = 2**17  # values that NumPy looks at


async def run(function: Callable[[], T], *, little: bool) -> T:
    """The result of a function; who is cancelled meanwhile waits for its end, for a thread cannot be stopped.

    Args:
        function: what to run.
        little: whether it takes less than 0.3 ms.
    """
    if little:
        return function()
    thread = asyncio.ensure_future(run_in_threadpool(function))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
