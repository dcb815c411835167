"""Spans of requests, sent to an OpenTelemetry collector by OTLP over HTTP.

Imported only where a collector is configured. Everything is set by OpenTelemetry's own variables
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables), which the SDK reads itself.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from environment import __version__
from transformer.observability.trace_context import Metadata, Trace

_SERVICE = "nereid-transformer"
_W3C = TraceContextTextMapPropagator()
# Statuses of gRPC that are errors of the server (https://opentelemetry.io/docs/specs/semconv/rpc/grpc).
_FAILED = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
_CLOSE_S = 3.0


class Spans:
    """Where the spans of all requests go."""

    def __init__(self) -> None:
        named = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": _SERVICE, "service.version": __version__, **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("nereid", __version__)

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """The trace of a request that has just arrived."""
        return SpanTrace(self._tracer, headers)

    def close(self) -> None:
        """Send the remaining spans, as far as a collector takes them in time."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


class SpanTrace(Trace):
    """A span of a request: below the client's, above those of its stages."""

    def __init__(self, tracer: Tracer, headers: Mapping[str, str]) -> None:
        # Invalid headers are dropped; the client's span is the parent.
        parent = _W3C.extract(dict(Trace(headers).metadata), Context())
        self._tracer = tracer
        self._span = tracer.start_span("request", parent, SpanKind.SERVER)
        self._context = set_span_in_context(self._span, Context())
        self.trace_id = format(self._span.get_span_context().trace_id, "032x")
        self.metadata = _metadata(self._context)

    @contextmanager
    def span(self, name: str) -> Iterator[Metadata]:
        """A span below the request's."""
        kind = SpanKind.CLIENT if name == "infer" else SpanKind.INTERNAL
        span = self._tracer.start_span(name, self._context, kind)
        try:
            yield _metadata(set_span_in_context(span, Context()))
        except BaseException as exc:
            # The type only: the message quotes the client.
            span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
            raise
        finally:
            span.end()

    def end(self, fields: Mapping[str, Any]) -> None:
        """End the request's span with its attributes and status."""
        span = self._span
        if fields["protocol"] == "http":
            span.update_name(f"{fields['method']} {fields['route']}")
            span.set_attribute("http.request.method", fields["method"])
            span.set_attribute("http.response.status_code", fields["status"])
            span.set_attribute("http.route", fields["route"])
            failed = int(fields["status"]) >= 500
        else:
            span.update_name(fields["route"].lstrip("/"))
            span.set_attribute("rpc.system", "grpc")
            span.set_attribute("rpc.method", fields["route"].lstrip("/"))
            span.set_attribute("rpc.response.status_code", fields["status"])
            failed = fields["status"] in _FAILED
        for key in ("request_id", "model", "version", "bytes_in", "bytes_out"):
            span.set_attribute(f"nereid.{key}", fields[key])
        if fields.get("code"):
            span.set_attribute("nereid.error_code", fields["code"])
        if fields.get("key"):
            span.set_attribute("nereid.key", fields["key"])
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end()


def _metadata(context: Context) -> Metadata:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return tuple(carrier.items())
