"""Calls in progress: what a server waits for when it shuts down."""

import asyncio
from typing import Any

_SETTLED_S = 1.0


class InFlightCalls:
    """Counts calls in progress."""

    def __init__(self) -> None:
        self._count = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def add(self, context: Any) -> None:
        """Count a call until its response is sent, which gRPC does after its method has returned."""
        self._count += 1
        self._is_idle.clear()
        context.add_done_callback(self._sent)

    def _sent(self, _: Any) -> None:
        self._count -= 1
        if not self._count:
            self._is_idle.set()

    async def drain(self) -> None:
        """Return when no call has been in progress for a moment: all responses are sent, none is about to start."""
        while True:
            await asyncio.sleep(_SETTLED_S)
            if not self._count:
                return
            await self._is_idle.wait()
