"""A request before it is worked at: read in time, and given up with its client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from transformer.admission import Admission, Deadline
from transformer.errors import ClientDisconnected, InvalidRequest
from transformer.observability import metrics
from transformer.rest.body import read_body, unpack

TIMEOUT_HEADER = "x-request-timeout-ms"


@asynccontextmanager
async def arrived(request: Request) -> AsyncIterator[tuple[bytes, Deadline]]:
    """The body, and until when there must be an answer; inside it is the request's turn.

    Raises:
        Overloaded: too many wait; mostly `LineGuard` tells it before.
        ServingError: of the body, see `read_body`.
        DeadlineExceeded: its time was over before its turn.
        ClientDisconnected: its client went away, and what was begun was cancelled.
    """
    deadline = _read_deadline(request)
    admission: Admission = request.app.state.admission
    with admission.body() as held:
        body = await read_body(request, held, deadline)
        async with _while_connected(request), admission.request_slot(deadline):
            yield await unpack(request, body, held), deadline


def _read_deadline(request: Request) -> Deadline:
    admission: Admission = request.app.state.admission
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return admission.deadline(None)
    if not text.isdecimal() or not text.isascii() or not int(text[:10]):
        raise InvalidRequest(f"X-Request-Timeout-Ms: got {text[:60]!r}, expected a whole number of milliseconds over 0")
    return admission.deadline(int(text[:10]) / 1000)


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel what is inside when the client closes its connection.

    Raises:
        ClientDisconnected: it did.
    """
    task = asyncio.current_task()
    assert task is not None, "a handler runs in a task"  # noqa: S101
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel():
            raise
        metrics.count_rejected("client gone")
        raise ClientDisconnected("the client went away") from None
    finally:
        watcher.cancel()
