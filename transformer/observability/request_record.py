"""What is known of a request while it is answered: its log line, its metrics and its trace are made of it."""

import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from transformer.errors import MESSAGE_LENGTH
from transformer.observability import metrics
from transformer.observability.trace_context import Begin, Trace

log = logging.getLogger("transformer")

ID_HEADER = "x-request-id"
# By name, as HTTP's bytes and as gRPC's text.
_HEADERS: Mapping[bytes | str, str] = {
    key: name for name in (ID_HEADER, "traceparent", "tracestate") for key in (name, name.encode())
}
# No space: a log line has fields. No quote and no backslash: Triton (2.51) writes ids into its trace file as they are.
_ID = re.compile(r"[!#-\[\]-~]+")
_ID_LENGTH = 128


@dataclass
class Record:
    """A request.

    Attributes:
        protocol: what carried it.
        method: HTTP's, or the name of the RPC.
        path: as it was sent: percent-encoded, without the query.
        request_id: the client's, or a new one.
        trace: where it belongs.
        route: the pattern that the path fits.
        model: name of the model, as the client says it.
        version: of the model, once it is known.
        status: HTTP's, or the name of gRPC's.
        code: of the error that the client got, "" without one.
        key: name of the API key that it showed, "" without a good one; None where the server asks for none.
        bytes_in, bytes_out: size of body or message.
        started: by `time.perf_counter()`.
    """

    protocol: Literal["http", "grpc"]
    method: str
    path: str
    request_id: str
    trace: Trace
    route: str = "other"
    model: str = ""
    version: str = ""
    status: int | str = ""
    code: str = ""
    key: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def begin(
        cls,
        protocol: Literal["http", "grpc"],
        method: str,
        *,
        path: str,
        headers: Iterable[tuple[bytes | str, bytes | str]],
        trace: Begin = Trace,
    ) -> "Record":
        """A request that has just come.

        Args:
            protocol: what carried it.
            method: HTTP's, or the name of the RPC.
            path: as it was sent.
            headers: names in lower case.
            trace: makes its trace of those that tell where it belongs.
        """
        fields = read_headers(headers)
        return cls(protocol, method, path[:MESSAGE_LENGTH], read_request_id(fields), trace(fields))

    def found(self, model: str, version: str) -> None:
        """The model is one there is, and this version of it is asked, or has answered."""
        metrics.MODELS.add(model)
        self.model, self.version = model, version

    def fields(self, ms: float) -> dict[str, Any]:
        """What a log line of JSON says of it."""
        fields = {
            "request_id": self.request_id,
            "protocol": self.protocol,
            "method" if self.protocol == "http" else "rpc": self.method,
            "route": self.route,
            "path": self.path,
            "model": self.model,
            "version": self.version,
            "status": self.status,
            "ms": round(ms, 3),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        return fields | ({"code": self.code} if self.code else {}) | ({} if self.key is None else {"key": self.key})


def read_headers(headers: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    """Those that tell where a request belongs; what came several times, with commas between (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for key, value in headers:
        if name := _HEADERS.get(key):
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def read_request_id(headers: Mapping[str, str]) -> str:
    """The id that the client gave, or a new one where it gave none that can go everywhere."""
    given = headers.get(ID_HEADER, "")[:_ID_LENGTH]
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


_CURRENT: ContextVar[Record | None] = ContextVar("record", default=None)


def current() -> Record:
    """The request that is answered here; a blank one outside of any."""
    return _CURRENT.get() or Record("http", "", "", "", Trace({}))


@contextmanager
def recorded(record: Record, *, quiet: Iterable[int | str] = ()) -> Iterator[Record]:
    """Inside is the request answered; behind it is counted, and its line written.

    Args:
        record: of the request.
        quiet: statuses that are not worth a line.
    """
    token = _CURRENT.set(record)
    try:
        yield record
    finally:
        seconds = time.perf_counter() - record.started
        metrics.count_request(record.route, record.model, record.version, record.status, seconds)
        if record.key is not None:
            metrics.count_request_by_key(record.key, record.model, record.status)
        record.trace.end(record)
        level = logging.DEBUG if record.status in quiet else logging.INFO
        if log.isEnabledFor(level):
            ms = seconds * 1000
            what = f"gRPC {record.method}" if record.protocol == "grpc" else f"{record.method} {record.path}"
            code = f" code={record.code}" if record.code else ""
            key = f" key={record.key}" if record.key else ""
            fields = {"fields": record.fields(ms)}
            log.log(level, "%s %s %s %.1fms%s%s", record.request_id, what, record.status, ms, code, key, extra=fields)
        _CURRENT.reset(token)
