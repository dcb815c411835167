"""Where a request belongs in a trace: W3C trace context (https://www.w3.org/TR/trace-context), passed on unchanged.

`spans.py` adds spans of this server where OpenTelemetry is configured.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Metadata = tuple[tuple[str, str], ...]

# Version 00 has nothing behind its flags, a later one may have.
_PARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?"
)
_STATE = re.compile(r"[ -~]{1,512}")


class Trace:
    """A request's place in a trace that other servers record.

    Attributes:
        metadata: what the next server receives; empty where the request belongs to no trace.
        trace_id: 32 hex digits, or "".
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Read `traceparent` and `tracestate`; invalid ones count as absent."""
        parent = _PARENT.fullmatch(headers.get("traceparent", ""))
        state = _STATE.fullmatch(headers.get("tracestate", ""))
        self.trace_id = parent["trace_id"] if parent else ""
        self.metadata: Metadata = (("traceparent", parent[0]),) if parent else ()
        if parent and state:
            self.metadata += (("tracestate", state[0]),)

    @contextmanager
    def span(self, name: str) -> Iterator[Metadata]:  # noqa: ARG002
        """A part of the request; yields the metadata that the next server receives."""
        yield self.metadata

    def end(self, fields: Mapping[str, Any]) -> None:
        """End the request; `fields` as `RequestRecord.fields` returns them."""


StartTrace = Callable[[Mapping[str, str]], Trace]
