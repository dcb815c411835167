"""How often the synchroniser is asked which models there are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from transformer import synchroniser as module
from transformer.synchroniser import Synchroniser

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{"models": {"iris":{}}}'
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server:
    """Answers the same thing after a moment, and counts."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await asyncio.sleep(0.2)
        writer.write(self.reply)
        writer.close()


@asynccontextmanager
async def asked_at(server: Server) -> AsyncIterator[Synchroniser]:
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listener:
        synchroniser = Synchroniser(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        try:
            yield synchroniser
        finally:
            await synchroniser.close()


@pytest.fixture(autouse=True)
def _names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_AGE_S", 30.0)  # on a busy machine too


@pytest.mark.parametrize(("reply", "known"), [(GOOD, [True, False]), (BAD, [None, None])])
def test_names_are_asked_for_once_whatever_is_answered(reply: bytes, known: list[bool | None]) -> None:
    async def ask() -> None:
        server = Server(reply)
        async with asked_at(server) as synchroniser:
            for _ in range(2):
                answers = await asyncio.gather(*(synchroniser.knows(name) for name in ("iris", "strange") * 5))
                assert answers == known * 5
        assert server.asked == 1

    asyncio.run(ask())


def test_who_goes_away_takes_nobodys_answer() -> None:
    async def ask() -> None:
        server = Server(GOOD)
        async with asked_at(server) as synchroniser:
            first = asyncio.create_task(synchroniser.knows("iris"))
            second = asyncio.create_task(synchroniser.knows("iris"))
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second is True
            assert first.cancelled()
        assert server.asked == 1

    asyncio.run(ask())


def test_who_failed_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        server = Server(BAD)
        async with asked_at(server) as synchroniser:
            assert await synchroniser.knows("iris") is None
            server.reply = GOOD
            monkeypatch.setattr(module, "_MAX_AGE_S", 0.0)
            assert await synchroniser.knows("iris") is True

    asyncio.run(ask())


def test_without_one_nobody_can_say() -> None:
    async def ask() -> None:
        synchroniser = Synchroniser("")
        assert await synchroniser.knows("iris") is None
        await synchroniser.close()

    asyncio.run(ask())
