"""The end of a process while it starts."""

import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # the handler comes before what takes a while to import
    import asyncio

T = TypeVar("T")


def end_at_sigterm() -> None:
    """Have SIGTERM end this process, until it has a handler of its own.

    The kernel passes no signal without a handler to the first process of a container (pid_namespaces(7)): stopped while
    it imports, it would run on until it is killed at the end of its grace period.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def run(runner: "asyncio.Runner", begin: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a program's coroutine; a signal that comes while its event loop is made is handled once that runs.

    A handler that raises before leaves the coroutine unawaited, which Python writes among the log lines. The signals
    are not blocked: threads that were started before, of libraries too, would take them.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    came: list[int] = []

    async def begin_with_signals() -> T:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)
        return await begin()

    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    return runner.run(begin_with_signals())
