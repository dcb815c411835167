"""How often the synchroniser is queried for its models, and what is taken from its response."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from transformer.triton.synchroniser_client import KnownModel, SynchroniserClient

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{"models": {"iris":{}}}'
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server:
    """Sends the same response after a moment, and counts requests."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.requests = 0

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        await asyncio.sleep(0.2)
        writer.write(self.response)
        writer.close()


@asynccontextmanager
async def client_of(server: Server, max_age_s: float = 30.0) -> AsyncIterator[SynchroniserClient]:
    async with await asyncio.start_server(server.respond, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        synchroniser = SynchroniserClient(url, max_age_s=max_age_s)
        try:
            yield synchroniser
        finally:
            await synchroniser.close()


@pytest.mark.parametrize(("response", "known"), [(GOOD, {"iris"}), (BAD, None)])
def test_models_are_requested_once_whatever_the_response(response: bytes, known: set[str] | None) -> None:
    async def run() -> None:
        server = Server(response)
        async with client_of(server) as synchroniser:
            for _ in range(2):
                results = await asyncio.gather(*(synchroniser.known() for _ in range(5)))
                assert [None if models is None else set(models) for models in results] == [known] * 5
        assert server.requests == 1

    asyncio.run(run())


def test_cancelled_caller_does_not_cancel_the_others() -> None:
    async def run() -> None:
        server = Server(GOOD)
        async with client_of(server) as synchroniser:
            first = asyncio.create_task(synchroniser.known())
            second = asyncio.create_task(synchroniser.known())
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second == {"iris": KnownModel("loading")}
            assert first.cancelled()
        assert server.requests == 1

    asyncio.run(run())


def test_failed_request_is_repeated_later() -> None:
    async def run() -> None:
        server = Server(BAD)
        async with client_of(server, max_age_s=0.0) as synchroniser:
            assert await synchroniser.known() is None
            server.response = GOOD
            assert set(await synchroniser.known() or ()) == {"iris"}

    asyncio.run(run())


def test_models_are_unknown_without_a_synchroniser() -> None:
    async def run() -> None:
        synchroniser = SynchroniserClient("")
        assert await synchroniser.known() is None
        await synchroniser.close()

    asyncio.run(run())


def status_with(**model: Any) -> bytes:
    body = json.dumps({"models": {"rows": model}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)


REJECTED = {"2": {"state": "refused", "reason": "no ONNX file"}, "10": {"state": "refused", "reason": "too large"}}


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (
            {"state": "refused", "versions": REJECTED},
            KnownModel("refused", "too large", {"2": "no ONNX file", "10": "too large"}),
        ),
        (
            {"state": "refused", "error": "config.pbtxt: line 1", "versions": {}},
            KnownModel("refused", "config.pbtxt: line 1"),
        ),
        ({"state": "loading", "error": None, "versions": {"1": {"state": "staged"}}}, KnownModel("loading")),
        # The words of a library are for the operator.
        (
            {"state": "refused", "error": "it cannot be judged: KeyError: '/srv/x'"},
            KnownModel("refused", "it cannot be judged"),
        ),
        ({"state": "refused", "error": "x" * 300}, KnownModel("refused", "x" * 200 + " ...")),
        # The status of an older synchroniser.
        ({"serving": ["1"], "versions": {"1": {"state": "serving"}}}, KnownModel("serving")),
    ],
)
def test_state_of_a_model_is_read(model: dict[str, Any], known: KnownModel) -> None:
    async def run() -> None:
        async with client_of(Server(status_with(**model))) as synchroniser:
            assert await synchroniser.known() == {"rows": known}

    asyncio.run(run())
