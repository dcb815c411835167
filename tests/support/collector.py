"""A collector of spans: OTLP over HTTP, as OpenTelemetry's SDKs send it, protobuf or JSON."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_server import Quiet, run_server


@dataclass(frozen=True)
class Span:
    """A received span.

    Attributes:
        service: the sender.
        trace_id, span_id, parent_id: hexadecimal; the last is "" for a root.
        kind: SPAN_KIND_SERVER and so on, or its number.
        status: STATUS_CODE_ERROR, or "".
        start_ns, end_ns: since 1970.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: Any
    status: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]


@dataclass
class Collector:
    """A running collector.

    Attributes:
        url: for OTEL_EXPORTER_OTLP_ENDPOINT.
        spans: all received spans.
        tokens: values of the header X-Token.
    """

    url: str
    spans: list[Span] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@contextmanager
def start_collector() -> Iterator[Collector]:
    """Collect until the block ends."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            is_json = "json" in self.headers["Content-Type"]
            sent = json.loads(body) if is_json else _as_json(body)
            collector.tokens.add(self.headers.get("X-Token", ""))
            if self.path == "/v1/traces":
                collector.spans.extend(_read(sent))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with run_server(Handler) as url:
        collector = Collector(url)
        yield collector


def _as_json(body: bytes) -> Any:
    """OTLP/JSON from protobuf: ids in hexadecimal, where protobuf's JSON has base64."""
    request = ExportTraceServiceRequest.FromString(body)
    sent = MessageToDict(request)
    for resource, resource_pb in zip(sent["resourceSpans"], request.resource_spans, strict=True):
        for scope, scope_pb in zip(resource["scopeSpans"], resource_pb.scope_spans, strict=True):
            for span, span_pb in zip(scope["spans"], scope_pb.spans, strict=True):
                span["traceId"], span["spanId"] = span_pb.trace_id.hex(), span_pb.span_id.hex()
                span["parentSpanId"] = span_pb.parent_span_id.hex()
    return sent


def _read(sent: Any) -> Iterator[Span]:
    for resource in sent["resourceSpans"]:
        service = _attributes(resource["resource"])["service.name"]
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            yield Span(
                service,
                span["name"],
                span["traceId"],
                span["spanId"],
                span.get("parentSpanId", ""),
                span.get("kind"),
                span.get("status", {}).get("code", ""),
                int(span["startTimeUnixNano"]),
                int(span["endTimeUnixNano"]),
                _attributes(span),
            )


def _attributes(owner: Any) -> dict[str, Any]:
    pairs = ((entry["key"], entry["value"]) for entry in owner.get("attributes", []))
    return {key: next(iter(value.values()), None) for key, value in pairs}
