"""Who may begin, and until when: overload is told at once, and nothing is done for nobody.

The way of a request:

    a request arrives -> Admission.check     the line is full: 429, before the body is read
    its body comes    -> Admission.body      all bodies together are too large: 429
    its body is here  -> Admission.turn      waits in the line, first come, first served
    it has its turn   -> decode, infer       each step asks Deadline.check first
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from transformer.errors import DeadlineExceeded, MemoryFull, QueueFull
from transformer.observability import metrics


@dataclass(frozen=True)
class Deadline:
    """When an answer is of no use any more.

    Attributes:
        at_s: by `time.monotonic()`.
        timeout_s: how long there was.
    """

    at_s: float
    timeout_s: float

    @classmethod
    def after(cls, timeout_s: float) -> "Deadline":
        """So long from now."""
        return cls(time.monotonic() + timeout_s, timeout_s)

    def sooner(self, timeout_s: float) -> "Deadline":
        """The earlier of this one, and of so long from when this one began."""
        return self if timeout_s >= self.timeout_s else Deadline(self.at_s - self.timeout_s + timeout_s, timeout_s)

    @property
    def remaining_s(self) -> float:
        """What is left; below zero when it is over."""
        return self.at_s - time.monotonic()

    def check(self, before: str) -> None:
        """Go on only in time.

        Raises:
            DeadlineExceeded: it is over.
        """
        if self.remaining_s <= 0:
            raise self._exceeded(before)

    @asynccontextmanager
    async def limit(self, before: str) -> AsyncIterator[None]:
        """Cancel what is inside when the time is over.

        Raises:
            DeadlineExceeded: it was.
        """
        try:
            async with asyncio.timeout(max(self.remaining_s, 0)) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._exceeded(before) from None

    def _exceeded(self, before: str) -> DeadlineExceeded:
        metrics.refuse("deadline")
        return DeadlineExceeded(f"the request's time, {self.timeout_s:g} s, was over before {before}")


class Admission:
    """So many requests are worked at, so many wait in line; one more is refused."""

    def __init__(self, *, max_in_flight: int, max_waiting: int, max_bodies_bytes: int) -> None:
        self._turns = asyncio.Semaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._max_bodies_bytes = max_bodies_bytes
        self._in_flight = 0
        self._waiting = 0
        self._bodies_bytes = 0
        metrics.IN_FLIGHT.set_function(lambda: self._in_flight)
        metrics.WAITING.set_function(lambda: self._waiting)

    def check(self) -> None:
        """Refuse what the line has no room for.

        Raises:
            Overloaded: it is full.
        """
        if self._waiting >= self._max_waiting and self._turns.locked():
            metrics.refuse("line full")
            raise QueueFull(
                f"queue full: {self._max_in_flight} requests in progress, {self._max_waiting} queued;"
                " next: send less at once, or add a replica"
            )

    @asynccontextmanager
    async def turn(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside.

        Raises:
            Overloaded: the line is full.
            DeadlineExceeded: the time was over in the line.
        """
        self.check()
        self._waiting += 1
        try:
            async with deadline.limit("its turn in the line"):
                await self._turns.acquire()
        finally:
            self._waiting -= 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._turns.release()

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Account for a body that is read and held inside."""
        body = Body(self)
        try:
            yield body
        finally:
            self.account(-body.size_bytes)

    def account(self, more_bytes: int) -> None:
        """So many bytes more, or less, are held: of bodies, and of answers that clients have not read yet."""
        self._bodies_bytes += more_bytes

    def take(self, size_bytes: int) -> None:
        """Account for more bytes of a body.

        Raises:
            Overloaded: all bodies together are too large.
        """
        self.check_room(size_bytes)
        self.account(size_bytes)

    def check_room(self, size_bytes: int) -> None:
        """Refuse a body that there is no room for.

        Raises:
            Overloaded: with it all bodies together are too large.
        """
        if self._bodies_bytes + size_bytes > self._max_bodies_bytes:
            metrics.refuse("bodies full")
            limit = self._max_bodies_bytes
            raise MemoryFull(
                f"request bodies and unread responses are over the limit of {limit} bytes;"
                " next: send less at once, or add a replica"
            )


class Body:
    """The bytes of one request that are in memory."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size_bytes = 0

    def check(self, size_bytes: int) -> None:
        """So many bytes are announced.

        Raises:
            Overloaded: there is no room for them.
        """
        self._admission.check_room(size_bytes)

    def grow(self, size_bytes: int) -> None:
        """More of it came.

        Raises:
            Overloaded: there is no room for it.
        """
        self._admission.take(size_bytes)
        self.size_bytes += size_bytes
