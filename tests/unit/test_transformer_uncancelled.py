"""Calls to a Triton that does not survive cancellation."""

import asyncio

import pytest

from transformer.admission import Deadline
from transformer.errors import Overloaded, PredictorTimeout
from transformer.triton.uncancelled import UncancelledCalls


class Triton:
    """Responds when it may."""

    def __init__(self) -> None:
        self.may_respond = asyncio.Event()
        self.started = self.responded = 0

    async def infer(self) -> str:
        self.started += 1
        await self.may_respond.wait()
        self.responded += 1
        return "response"


async def run(calls: UncancelledCalls, triton: Triton, *, timeout_s: float = 20, size_bytes: int = 0) -> str:
    response: str = await calls.run(triton.infer, name="m", deadline=Deadline.after(timeout_s), size_bytes=size_bytes)
    return response


async def abandon(calls: UncancelledCalls, triton: Triton, *, size_bytes: int = 0) -> None:
    task = asyncio.create_task(run(calls, triton, size_bytes=size_bytes))
    while not triton.started:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def settle(calls: UncancelledCalls) -> None:
    while calls.abandoned_bytes:
        await asyncio.sleep(0)


def test_cancelled_call_goes_on() -> None:
    async def main() -> int:
        calls, triton = UncancelledCalls(), Triton()
        await abandon(calls, triton)
        triton.may_respond.set()
        await calls.close()
        return triton.responded

    assert asyncio.run(main()) == 1


def test_late_call_is_a_timeout_and_goes_on() -> None:
    async def main() -> int:
        calls, triton = UncancelledCalls(), Triton()
        with pytest.raises(PredictorTimeout):
            await run(calls, triton, timeout_s=0.01)
        triton.may_respond.set()
        await calls.close()
        return triton.responded

    assert asyncio.run(main()) == 1


def test_abandoned_call_keeps_its_slot_until_it_ends() -> None:
    async def main() -> None:
        calls, triton = UncancelledCalls(max_calls=1), Triton()
        await abandon(calls, triton)
        with pytest.raises(PredictorTimeout):
            await run(calls, triton, timeout_s=0.05)
        assert triton.started == 1
        triton.may_respond.set()
        assert await run(calls, triton) == "response"

    asyncio.run(main())


def test_abandoned_calls_hold_limited_memory() -> None:
    async def main() -> None:
        calls, triton = UncancelledCalls(max_abandoned_bytes=10), Triton()
        await abandon(calls, triton, size_bytes=11)
        with pytest.raises(Overloaded, match="11 bytes"):
            await run(calls, triton)
        triton.may_respond.set()
        await settle(calls)
        assert await run(calls, triton, size_bytes=11) == "response"

    asyncio.run(main())


def test_failed_call_returns_its_slot_and_its_bytes() -> None:
    async def fail() -> None:
        raise MemoryError

    async def main() -> None:
        calls, triton = UncancelledCalls(max_calls=1, max_abandoned_bytes=0), Triton()
        triton.may_respond.set()
        with pytest.raises(MemoryError):
            await calls.run(fail, name="m", deadline=Deadline.after(20), size_bytes=5)
        assert (await run(calls, triton), calls.abandoned_bytes) == ("response", 0)

    asyncio.run(main())
