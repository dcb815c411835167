"""Log lines, as text or as JSON: one line for each record, which nothing that it quotes can break or colour."""

import asyncio
import logging
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, Literal, TextIO

from environment.log_lines import JsonFormatter, log_what_python_writes, printable
from transformer.observability.request_record import current_request

Format = Literal["text", "json"]

_BATCH_S = 0.02


def configure(log_format: Format) -> None:
    """Configure the root logger; call once, before anything is logged."""
    handler = BatchingHandler()
    handler.setFormatter(Json() if log_format == "json" else Text("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if log_format == "json":
        log_what_python_writes()
    for noisy in ("uvicorn", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # grpcio 1.85 logs a traceback when a client disconnects while its response is being sent.
    logging.getLogger("grpc._cython.cygrpc").addFilter(
        lambda record: not str(record.msg).startswith("ExecuteBatchError")
    )
    # Not shown: https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class BatchingHandler(logging.StreamHandler[TextIO]):
    """Batches log lines for 20 ms: under overload a write for each line, which wakes the reader, doubles CPU use.

    A warning is written immediately, with all lines before it; so is every line while no event loop runs.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream, or to stderr."""
        super().__init__(stream)
        self._lines: list[str] = []
        self._waits = False

    def emit(self, record: logging.LogRecord) -> None:
        """logging.Handler."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno >= logging.WARNING:
                self.flush()
            elif not self._waits:
                self._waits = self._flush_later()
        except Exception:  # noqa: BLE001  # as logging requires: a failing line must fail nothing else
            self.handleError(record)

    def flush(self) -> None:
        """logging.Handler; `logging.shutdown` calls it at the end."""
        with self.lock or nullcontext():
            text, self._lines, self._waits = "".join(self._lines), [], False
            if text and self.stream:
                with suppress(OSError, ValueError):  # the reader is gone
                    self.stream.write(text)
                    self.stream.flush()

    def _flush_later(self) -> bool:
        try:
            asyncio.get_running_loop().call_later(_BATCH_S, self.flush)
        except RuntimeError:
            self.flush()
            return False
        return True


class Text(logging.Formatter):
    """Log lines for people."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name, as below
        """logging.Formatter."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Indented: no line of a traceback looks like the first line of a record."""
        lines = "".join(traceback.format_exception(*ei)).splitlines()
        return "\n".join(f"  {printable(line)}" for line in lines)


class Json(JsonFormatter):
    """Log lines for programs, with the fields of the current request."""

    def context(self) -> Mapping[str, Any]:
        """JsonFormatter."""
        return members_of_request()


def members_of_request() -> Mapping[str, str]:
    """By which the request in progress is known in every line; empty outside of one."""
    request = current_request()
    members = {"request_id": request.request_id, "trace_id": request.trace.trace_id}
    return {name: value for name, value in members.items() if value}
