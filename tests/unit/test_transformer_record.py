"""Request id and trace context, whatever a client sends."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environment.log_lines import printable
from transformer.observability.logs import Json, Text
from transformer.observability.request_record import read_headers, read_request_id
from transformer.observability.trace_context import Trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.mark.parametrize("given", ["", "\u00fc", "two\nlines", "a b", 'a"b', "a\\b", "\x7f", "\x1b[31m"])
def test_request_id_that_cannot_go_everywhere_is_replaced(given: str) -> None:
    assert len(read_request_id({"x-request-id": given})) == 32
    assert read_request_id({}) != read_request_id({})


@pytest.mark.parametrize("given", ["abc", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "x" * 128])
def test_request_id_is_the_clients(given: str) -> None:
    assert read_request_id({"x-request-id": given}) == given
    assert read_request_id({"x-request-id": given + "x" * 500})[:128] == (given + "x" * 500)[:128]


def test_headers_are_those_of_both_protocols() -> None:
    found = {"x-request-id": "abc", "tracestate": "a=1,b=2"}
    pairs = [("other", "x"), ("x-request-id", "abc"), ("tracestate", "a=1"), ("tracestate", "b=2")]
    assert read_headers(pairs) == found
    assert read_headers([(key.encode(), value.encode()) for key, value in pairs]) == found


@pytest.mark.parametrize("parent", [PARENT, PARENT[:-1] + "0", "cc" + PARENT[2:], "cc" + PARENT[2:] + "-what-comes"])
def test_trace_context_is_read(parent: str) -> None:
    trace = Trace({"traceparent": parent, "tracestate": "vendor=1"})
    assert trace.trace_id == TRACE_ID
    assert trace.metadata == (("traceparent", parent), ("tracestate", "vendor=1"))
    assert Trace({"traceparent": parent, "tracestate": "x" * 513}).metadata == (("traceparent", parent),)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT[:-1],
        PARENT + "-more",
        PARENT + ",",
        f"{PARENT},{PARENT}",
        PARENT.upper(),
        " " + PARENT,
        PARENT + "\n",
        "ff" + PARENT[2:],
        PARENT.replace(TRACE_ID, "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_broken_trace_context_counts_as_absent(parent: str) -> None:
    trace = Trace({"traceparent": parent, "tracestate": "vendor=1"})
    assert (trace.trace_id, trace.metadata) == ("", ())


@given(st.text())
def test_every_text_becomes_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert (printable(text) == text) == text.isprintable()


EVIL = "x\r\n2026-01-01 00:00:00,000 INFO transformer INJECTED\x1b[31m\x9b31m\u2028\u202e\x7f\ud800"


def logged(message: str, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("transformer", logging.ERROR, __file__, 1, "%s", (message,), info)


def test_a_line_of_text_is_one_whatever_it_quotes() -> None:
    formatter = Text("%(levelname)s %(message)s")
    assert formatter.format(logged(EVIL)).isprintable()
    first, *rest = formatter.format(logged("unexpected", ValueError(EVIL))).split("\n")
    assert first == "ERROR unexpected"
    assert all(line.isprintable() and line.startswith("  ") for line in rest)


def test_a_line_of_json_is_one_whatever_it_quotes() -> None:
    for record in (logged(EVIL), logged("unexpected", ValueError(EVIL))):
        line = Json().format(record)
        assert line.isprintable()
        assert line.isascii()
        assert json.loads(line)["level"] == "ERROR"
    assert EVIL in json.loads(Json().format(logged("unexpected", ValueError(EVIL))))["exception"]
