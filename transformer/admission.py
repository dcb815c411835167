"""Admission control and deadlines: excess load is rejected immediately, and work that is too late is not begun.

The way of a request:

    it arrives             Admission.check          the queue is full: 429, before the body is read
    its body arrives       Admission.body           all bodies together are too large: 429
    its body is complete   Admission.request_slot   waits in the queue, first come, first served
    it has a slot          decode, infer            each step begins with Deadline.check
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from transformer.errors import DeadlineExceeded, MemoryFull, PayloadTooLarge, QueueFull
from transformer.observability import metrics


@dataclass(frozen=True)
class Deadline:
    """When a response is of no use any more.

    Attributes:
        at_s: by `time.monotonic()`.
        timeout_s: the time from the arrival of the request.
    """

    at_s: float
    timeout_s: float

    @classmethod
    def after(cls, timeout_s: float) -> "Deadline":
        """This long from now."""
        return cls(time.monotonic() + timeout_s, timeout_s)

    def sooner(self, timeout_s: float) -> "Deadline":
        """The earlier one of this deadline and of `timeout_s` from the arrival of the request."""
        return self if timeout_s >= self.timeout_s else Deadline(self.at_s - self.timeout_s + timeout_s, timeout_s)

    @property
    def remaining_s(self) -> float:
        """Time left; below zero when the deadline has passed."""
        return self.at_s - time.monotonic()

    def check(self, before: str) -> None:
        """Continue only in time.

        Args:
            before: what has not happened yet, for the message.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        if self.remaining_s <= 0:
            raise self.exceeded(before)

    @asynccontextmanager
    async def limit(self, before: str) -> AsyncIterator[None]:
        """Cancel what runs inside at the deadline.

        Args:
            before: what has not happened then, for the message.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        try:
            async with asyncio.timeout(max(self.remaining_s, 0)) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.exceeded(before) from None

    def exceeded(self, before: str) -> DeadlineExceeded:
        """Count and describe that the deadline has passed; the arguments are those of `check`."""
        metrics.count_rejected("deadline")
        return DeadlineExceeded(f"deadline of {self.timeout_s:g} s exceeded before {before}")


class Admission:
    """Limits concurrent and queued requests, and the bytes of their bodies; raises Overloaded beyond them."""

    def __init__(self, *, max_in_flight: int, max_waiting: int, max_bodies_bytes: int, max_timeout_s: float) -> None:
        self._request_slots = asyncio.Semaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._max_bodies_bytes = max_bodies_bytes
        self._max_timeout_s = max_timeout_s
        self._in_flight = 0
        self._waiting = 0
        self._bodies_bytes = 0
        metrics.IN_FLIGHT.set_function(lambda: self._in_flight)
        metrics.WAITING.set_function(lambda: self._waiting)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Deadline of a request that has just arrived: the client's, or the longest that is allowed."""
        return Deadline.after(self._max_timeout_s if timeout_s is None else min(timeout_s, self._max_timeout_s))

    def check(self) -> None:
        """Reject a request for which the queue has no room.

        Raises:
            QueueFull: it is full.
        """
        if self._waiting >= self._max_waiting and self._request_slots.locked():
            metrics.count_rejected("line full")
            raise QueueFull(
                f"queue full: {self._max_in_flight} requests in progress, {self._max_waiting} queued;"
                " next: send less at once, or add a replica"
            )

    @asynccontextmanager
    async def request_slot(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait in the queue for a slot, and hold it inside.

        Raises:
            QueueFull: it is full.
            DeadlineExceeded: the deadline passed in the queue.
        """
        self.check()
        self._waiting += 1
        try:
            async with deadline.limit("it left the queue"):
                await self._request_slots.acquire()
        finally:
            self._waiting -= 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._request_slots.release()

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Account for a body that is read and held inside, and for what `hold` adds to it."""
        body = Body(self)
        token = _BODY.set(body)
        try:
            yield body
        finally:
            _BODY.reset(token)
            self.account(-body.size_bytes)

    def account(self, more_bytes: int) -> None:
        """Add to, or subtract from, the bytes of bodies and of responses that clients have not read yet."""
        self._bodies_bytes += more_bytes

    def check_fits(self, size_bytes: int) -> None:
        """Reject a request whose body and results would be too large even alone.

        Raises:
            PayloadTooLarge: they would.
        """
        if size_bytes > self._max_bodies_bytes:
            raise PayloadTooLarge(
                f"the request and its results are over the limit of {self._max_bodies_bytes} bytes; send fewer images"
                " in one request"
            )

    def check_room(self, size_bytes: int) -> None:
        """Reject a body for which there is no room.

        Raises:
            MemoryFull: all bodies together would be too large.
        """
        if self._bodies_bytes + size_bytes > self._max_bodies_bytes:
            metrics.count_rejected("bodies full")
            raise MemoryFull(
                f"request bodies and unread responses are over the limit of {self._max_bodies_bytes} bytes;"
                " next: send less at once, or add a replica"
            )


class Body:
    """The bytes of one request that are in memory: its body, and large results until they are written."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size_bytes = 0

    def check(self, size_bytes: int) -> None:
        """Check an announced length.

        Raises:
            MemoryFull: there is no room for it.
        """
        self._admission.check_room(size_bytes)

    def grow(self, size_bytes: int) -> None:
        """Account for bytes that have arrived.

        Raises:
            MemoryFull: there is no room for them.
        """
        self._admission.check_room(size_bytes)
        self._admission.account(size_bytes)
        self.size_bytes += size_bytes

    def hold(self, size_bytes: int) -> None:
        """Account for a large result until the request ends.

        Raises:
            PayloadTooLarge: there would never be room for all results of the request.
            MemoryFull: there is no room for it now.
        """
        self._admission.check_fits(self.size_bytes + size_bytes)
        self.grow(size_bytes)


_BODY: ContextVar[Body | None] = ContextVar("body", default=None)


def hold(size_bytes: int) -> None:
    """Account for a large result of the request in progress until it ends; on the event loop.

    Raises:
        PayloadTooLarge, MemoryFull: see `Body.hold`.
    """
    body = _BODY.get()
    if body is not None and size_bytes:
        body.hold(size_bytes)
