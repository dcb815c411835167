"""Reads and admits a request; cancels it when its client disconnects."""

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
async def admitted(request: Request) -> AsyncIterator[tuple[bytes, Deadline]]:
    """Body and deadline of a request, which holds a request slot inside.

    Raises:
        Overloaded: the queue is full; mostly `AdmissionMiddleware` has rejected it before.
        ServingError: of the body, see `read_body`.
        DeadlineExceeded: while queued.
        ClientDisconnected: what was in progress is cancelled.
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
        ClientDisconnected: the client did.
    """
    task = asyncio.current_task()
    assert task is not None, "a handler runs in a task"  # noqa: S101
    disconnected = False

    async def watch() -> None:
        nonlocal disconnected
        while (await request.receive())["type"] != "http.disconnect":
            pass
        disconnected = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not disconnected or task.uncancel():
            raise
        metrics.count_rejected("client gone")
        raise ClientDisconnected("the client disconnected") from None
    finally:
        watcher.cancel()
