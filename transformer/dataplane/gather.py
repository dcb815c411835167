"""Several coroutines at once, and one error."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def gather_or_raise(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in their order, or the first error alone; the other coroutines are cancelled then.

    The error is raised where nothing refers to it any more: a group or a task that it can be reached from makes a
    reference cycle of error, frames and images, which stays in memory until Python's garbage collector runs.
    """
    if len(coroutines) == 1:
        return [await coroutines[0]]
    error: BaseException | None = None
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(coroutine) for coroutine in coroutines)
    except ExceptionGroup as errors:
        error = errors.exceptions[0]
    if error is None:
        return [task.result() for task in tasks]
    try:
        raise error
    finally:
        del error, tasks, coroutines, group
