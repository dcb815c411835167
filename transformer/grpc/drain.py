"""Calls under way: what a server that stops waits for."""

import asyncio
from typing import Any

_SETTLED_S = 1.0


class Calls:
    """Counts calls."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    def add(self, context: Any) -> None:
        """Count a call until its answer is sent, which gRPC does behind its method."""
        self._count += 1
        self._none_left.clear()
        context.add_done_callback(self._sent)

    def _sent(self, _: Any) -> None:
        self._count -= 1
        if not self._count:
            self._none_left.set()

    async def end(self) -> None:
        """Return when there has been none for a moment: the last answer is sent, and none waits to begin."""
        while True:
            await asyncio.sleep(_SETTLED_S)
            if not self._count:
                return
            await self._none_left.wait()
