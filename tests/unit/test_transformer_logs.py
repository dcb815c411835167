"""When log lines are written."""

import asyncio
import io
import logging
import threading

from transformer.observability.logs import BatchingHandler


class Writes(io.StringIO):
    """Notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)


class Closed(io.StringIO):
    """Like a pipe without a reader."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def line(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("transformer", level, __file__, 1, text, (), None)


def test_lines_of_one_batch_are_written_together() -> None:
    writes = Writes()
    handler = BatchingHandler(writes)

    async def log() -> None:
        for text in ("a", "b"):
            handler.handle(line(text))
        assert writes.texts == []
        await asyncio.sleep(0.1)
        assert writes.texts == ["a\nb\n"]
        handler.handle(line("c"))
        await asyncio.sleep(0.1)

    asyncio.run(log())
    assert writes.texts == ["a\nb\n", "c\n"]


def test_warning_is_written_at_once_behind_what_came_before() -> None:
    writes = Writes()
    handler = BatchingHandler(writes)

    async def log() -> None:
        handler.handle(line("a"))
        handler.handle(line("b", logging.WARNING))
        assert writes.texts == ["a\nb\n"]

    asyncio.run(log())


def test_line_where_no_loop_runs_is_written_at_once() -> None:
    writes = Writes()
    handler = BatchingHandler(writes)
    thread = threading.Thread(target=handler.handle, args=(line("a"),))
    thread.start()
    thread.join()
    handler.handle(line("b"))
    assert writes.texts == ["a\n", "b\n"]


def test_batched_lines_are_written_at_the_end() -> None:
    writes = Writes()
    handler = BatchingHandler(writes)

    async def log() -> None:
        handler.handle(line("a"))

    asyncio.run(log())
    assert writes.texts == []
    handler.flush()  # logging.shutdown
    assert writes.texts == ["a\n"]


def test_log_without_a_reader_fails_nothing() -> None:
    handler = BatchingHandler(Closed())

    async def log() -> None:
        handler.handle(line("a"))
        await asyncio.sleep(0.1)
        handler.handle(line("b", logging.ERROR))

    asyncio.run(log())
