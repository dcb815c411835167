"""The record of a request in progress: the source of its log line, its metrics and its trace."""

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
from transformer.observability.trace_context import StartTrace, Trace

log = logging.getLogger("transformer")

ID_HEADER = "x-request-id"
_INFERENCE_ID = "x-amzn-sagemaker-inference-id"  # SageMaker passes the other one not on
# By name, as HTTP's bytes and as gRPC's text.
_HEADERS: Mapping[bytes | str, str] = {
    key: name for name in (ID_HEADER, _INFERENCE_ID, "traceparent", "tracestate") for key in (name, name.encode())
}
# No space, which separates the fields of a log line; no quote and no backslash, which Triton (2.51) does not escape in
# its trace file.
_ID = re.compile(r"[!#-\[\]-~]+")
_ID_LENGTH = 128


@dataclass
class RequestRecord:
    """A request in progress.

    Attributes:
        protocol: HTTP or gRPC.
        method: of HTTP, or the name of the RPC.
        path: as sent: percent-encoded, without the query.
        request_id: the client's, or a new one.
        trace: that the request belongs to.
        route: the pattern that matches the path.
        model: name of the model, as the client gave it.
        version: of the model, once known.
        status: of HTTP, or the name of gRPC's.
        code: of the error in the response, "" without one.
        key: name of the API key, "" without a valid one; None where authentication is disabled.
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
    def from_headers(
        cls,
        protocol: Literal["http", "grpc"],
        method: str,
        *,
        path: str,
        headers: Iterable[tuple[bytes | str, bytes | str]],
        trace: StartTrace = Trace,
    ) -> "RequestRecord":
        """A request that has just arrived.

        Args:
            protocol: HTTP or gRPC.
            method: of HTTP, or the name of the RPC.
            path: as sent.
            headers: names in lower case.
            trace: starts its trace from the headers of the trace context.
        """
        fields = read_headers(headers)
        return cls(protocol, method, path[:MESSAGE_LENGTH], read_request_id(fields), trace(fields))

    def set_model(self, model: str, version: str) -> None:
        """Note a model that exists, and the version that is to respond or has responded."""
        metrics.KNOWN_MODELS.add(model)
        self.model, self.version = model, version

    @contextmanager
    def keep_model(self) -> Iterator[None]:
        """Note no other model inside: the request is one for the model that it names first."""
        model, version = self.model, self.version
        try:
            yield
        finally:
            self.model, self.version = model, version

    def fields(self, ms: float) -> dict[str, Any]:
        """The fields of its log line in JSON, and the attributes of its span."""
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
    """Request id and trace context; a repeated header is joined by commas (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for key, value in headers:
        if name := _HEADERS.get(key):
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def read_request_id(headers: Mapping[str, str]) -> str:
    """The client's id, or a new one where it gave none that fits logs, traces and headers."""
    given = (headers.get(ID_HEADER) or headers.get(_INFERENCE_ID, ""))[:_ID_LENGTH]
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


_CURRENT: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


def current_request() -> RequestRecord:
    """The request in progress here; a blank one outside of any."""
    return _CURRENT.get() or RequestRecord("http", "", "", "", Trace({}))


@contextmanager
def track_request(record: RequestRecord, *, quiet: Iterable[int | str] = ()) -> Iterator[RequestRecord]:
    """Make a request the current one inside; then count it, end its trace and log it.

    Args:
        record: of the request.
        quiet: statuses that are logged at DEBUG only.
    """
    token = _CURRENT.set(record)
    try:
        yield record
    finally:
        seconds = time.perf_counter() - record.started
        metrics.count_request(record.route, record.model, record.version, record.status, seconds)
        if record.key is not None:
            metrics.count_request_by_key(record.key, record.model, record.status)
        fields = record.fields(seconds * 1000)
        record.trace.end(fields)
        level = logging.DEBUG if record.status in quiet else logging.INFO
        if log.isEnabledFor(level):
            what = f"gRPC {record.method}" if record.protocol == "grpc" else f"{record.method} {record.path}"
            code = f" code={record.code}" if record.code else ""
            key = f" key={record.key}" if record.key else ""
            values = record.request_id, what, record.status, seconds * 1000, code, key
            log.log(level, "%s %s %s %.1fms%s%s", *values, extra={"fields": fields})
        _CURRENT.reset(token)
