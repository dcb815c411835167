"""Leaving the event loop."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from transformer.offload import ALWAYS, INLINE_COST, make_threads, offload, set_threads


@pytest.mark.parametrize(
    ("cost", "is_inline"), [(0, True), (INLINE_COST, True), (INLINE_COST + 1, False), (ALWAYS, False)]
)
def test_only_work_above_the_cost_of_a_thread_leaves_the_event_loop(cost: float, *, is_inline: bool) -> None:
    thread = asyncio.run(offload(threading.get_ident, cost=cost))
    assert (thread == threading.get_ident()) == is_inline


@pytest.mark.parametrize("cost", [0, ALWAYS])
def test_error_is_raised(cost: float) -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(offload(lambda: 1 / 0, cost=cost))


def cancelled_while(is_running: bool) -> list[str]:
    """The functions that ran, of two for one thread, when the offload of one of them was cancelled."""
    ran: list[str] = []
    started, may_end = threading.Event(), threading.Event()

    def first() -> None:
        started.set()
        may_end.wait(20)
        ran.append("first")

    def second() -> None:
        ran.append("second")

    async def start(function: Callable[[], None]) -> asyncio.Task[None]:
        task = asyncio.create_task(offload(function, cost=ALWAYS))
        await asyncio.sleep(0.05)
        return task

    async def main() -> None:
        set_threads(make_threads(1))
        tasks = [await start(first), await start(second)]
        assert started.wait(20)
        cancelled = tasks[0 if is_running else 1]
        cancelled.cancel()
        await asyncio.sleep(0.05)
        assert not cancelled.done()  # the thread, or its turn, has not ended
        may_end.set()
        await asyncio.wait(tasks)
        assert cancelled.cancelled()

    asyncio.run(main())
    return ran


def test_cancellation_waits_for_a_function_that_runs() -> None:
    assert cancelled_while(is_running=True) == ["first", "second"]


def test_cancelled_function_that_waits_for_a_thread_does_not_run() -> None:
    assert cancelled_while(is_running=False) == ["first"]


class Large:
    """What is in memory as long as something refers to it."""


def test_an_error_keeps_nothing_in_memory() -> None:
    kept: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # raised above, without words
            await offload(fail, cost=ALWAYS)

    gc.disable()
    try:
        asyncio.run(main())
        assert kept[0]() is None
    finally:
        gc.enable()
