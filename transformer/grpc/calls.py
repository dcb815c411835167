"""Calls under way: what a server that stops waits for."""

import asyncio

_SETTLED_S = 1.0


class Calls:
    """Counts calls; each is a `with` block."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none_left.clear()

    def __exit__(self, *_: object) -> None:
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
