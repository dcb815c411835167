"""Sends invalid inputs to a running server, and verifies each response."""

import http.client
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import IMAGES, V1, examples, form, images, mutated, v2
from tests.support.stack import ROOT

_ROUND = 500  # inputs of one seed: hypothesis keeps all of them in memory
_INTERNALS = re.compile(rb"Traceback|site-packages|\.py\b|/usr/|/home/|/tmp/|" + re.escape(bytes(ROOT)))
# Numbers, and quoted parts of an input.
_VARIES = re.compile(rb"\d+|'[^']*'")
_GOOD = form(IMAGES[0])


class Defect(Exception):
    """A response that no request may cause."""


@dataclass
class Route:
    """Responses of a route; reasons are beginnings of errors, without numbers and quotes."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    reasons: set[bytes] = field(default_factory=set)


@dataclass
class Report:
    """Results of a run; memory is that of the server, after a warm-up and after each round."""

    routes: dict[str, Route] = field(default_factory=dict)
    memory_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """One request."""

    kind: str
    path: str
    body: bytes
    headers: Mapping[str, str]


_FORM = {"Content-Type": "multipart/form-data; boundary=XX"}
_MODELS = st.sampled_from(["digits", "digit-finder"])
# Beside none, so that most images are decoded: a classifier for what the detector finds, and what is none.
_QUERIES = st.sampled_from(
    ["", "", "?then=digits", "?then=digits&confidence=0&max_detections=9", "?then=iris", "?then=%00", "?then="]
)


@st.composite
def _raw(draw: st.DrawFn) -> Request:
    path = f"/predict/{draw(_MODELS)}{draw(_QUERIES)}"
    return Request("image", path, draw(images()), {"Content-Type": "image/png"})


@st.composite
def _multipart(draw: st.DrawFn) -> Request:
    whole = st.lists(st.sampled_from(IMAGES), min_size=1, max_size=2).map(lambda images: form(*images))
    return Request("multipart", "/predict/digits", draw(mutated(whole)), _FORM)


@st.composite
def _v1(draw: st.DrawFn) -> Request:
    return Request("v1", f"/v1/models/{draw(_MODELS)}:predict{draw(_QUERIES)}", draw(mutated(st.sampled_from(V1))), {})


_ROW = bytes(16)
_IMAGE = len(IMAGES[0]).to_bytes(4, "little") + IMAGES[0]
_INFERENCE_BODIES = [
    ("iris", *v2("features", "FP32", [1, 4], _ROW)),
    ("iris", *v2("features", "FP32", [1, 4], _ROW, outputs=[{"name": "class_id"}], id="a")),
    ("digits", *v2("image", "BYTES", [1], len(IMAGES[3]).to_bytes(4, "little") + IMAGES[3])),
    ("digit-finder", *v2("image", "BYTES", [1, 1], _IMAGE)),
    (
        "digit-finder",
        *v2("image", "BYTES", [1], _IMAGE, parameters={"then": "digits", "confidence": 0, "max_detections": 9}),
    ),
    (
        "digit-finder",
        *v2("image", "BYTES", [1], _IMAGE, parameters={"then": "digits"}, outputs=[{"name": "then_scores"}]),
    ),
]


@st.composite
def _v2(draw: st.DrawFn) -> Request:
    model, head, blob = draw(st.sampled_from(_INFERENCE_BODIES))
    broken = draw(st.sampled_from(["head", "blob", "length"]))
    if broken == "head":
        head = draw(mutated(st.just(head)))
    elif broken == "blob":
        blob = draw(mutated(st.just(blob)))
    length = draw(st.integers(-1, len(head) + len(blob) + 1)) if broken == "length" else len(head)
    headers = {"Inference-Header-Content-Length": str(length)}
    return Request("v2 binary", f"/v2/models/{model}/infer", head + blob, headers)


_INPUTS = st.one_of(_raw(), _multipart(), _v1(), _v2())


def fuzz(
    port: int,
    *,
    pid: int,
    count: int,
    seed: int,
    warm_up: int = 4 * _ROUND,
    report_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Send invalid inputs.

    Args:
        port: of the server, on loopback.
        pid: its process, for its memory.
        count: number of inputs after the warm-up.
        seed: of the inputs.
        warm_up: inputs that are sent first and not counted: memory grows with the first of every kind.
        report_progress: called with the number of finished inputs.

    Raises:
        Defect: a response of 500 or more, one that is not a JSON error, or one with internals; a valid request that
            fails. With the smallest input that shows it.
    """
    process = psutil.Process(pid)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    report = Report()
    for first in range(-warm_up, count, _ROUND):
        if first == 0:
            report = Report(memory_bytes=[process.memory_info().rss])
        _round(connection, report, number=seed * 1_000_003 + first + warm_up, size=min(_ROUND, count - first))
        _send_valid(connection)
        report.memory_bytes.append(process.memory_info().rss)
        report_progress(max(first + _ROUND, 0))
    connection.close()
    return report


def _round(connection: http.client.HTTPConnection, report: Report, *, number: int, size: int) -> None:
    @examples(number, size)
    @given(_INPUTS)
    def send(request: Request) -> None:
        started = time.perf_counter()
        status, body = _send(connection, request)
        route = report.routes.setdefault(request.kind, Route())
        route.statuses[status] += 1
        if status >= 400:
            route.reasons.add(_VARIES.sub(b"#", body)[:60])
        route.slowest_ms = max(route.slowest_ms, (time.perf_counter() - started) * 1000)
        # 503: Triton's queue is full, whatever the request.
        if status >= 500 or _INTERNALS.search(body) or (status != 200 and not body.startswith(b'{"error":')):
            raise Defect(f"{request.kind}: {status} {body[:300]!r} for {request}")

    send()


def _send(connection: http.client.HTTPConnection, request: Request, *, again: bool = False) -> tuple[int, bytes]:
    try:
        connection.request("POST", request.path, request.body, dict(request.headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as exc:
        connection.close()
        if not again:  # the server closes idle connections after 5 s, and hypothesis may take longer
            return _send(connection, request, again=True)
        raise Defect(f"{request.kind}: no response ({exc!r}) for {request}") from exc


def _send_valid(connection: http.client.HTTPConnection) -> None:
    status, body = _send(connection, Request("good", "/predict/digits", _GOOD, _FORM))
    if status != 200:
        raise Defect(f"valid request: {status} {body[:300]!r}")
