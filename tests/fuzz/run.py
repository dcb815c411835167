"""Sends invalid inputs to a running server, and verifies each response."""

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import grpc
import psutil
from hypothesis import given

from loadtest.generator.requests import GRPC_CHANNEL, MODEL_INFER
from tests.fuzz import forms
from tests.fuzz.inputs import IMAGES, examples, form
from tests.fuzz.parameters import Parameters
from tests.fuzz.requests import FORM, REQUESTS, Request
from tests.support.error_codes import rejection_of
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


class Connections:
    """To one server, over HTTP and gRPC."""

    def __init__(self, port: int, grpc_port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", GRPC_CHANNEL)
        self._infer: Any = self._channel.unary_unary(MODEL_INFER)  # bytes in, bytes out

    def send(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the response; an error of gRPC as HTTP would have it.

        Raises:
            Defect: there is none.
        """
        return self._send_grpc(request) if request.kind == "grpc" else self._send_http(request)

    def close(self) -> None:
        """Close them."""
        self._http.close()
        self._channel.close()

    def _send_http(self, request: Request, *, again: bool = False) -> tuple[int, bytes]:
        try:
            self._http.request("POST", request.path, request.body, dict(request.headers))
            response = self._http.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._http.close()
            if not again:  # the server closes idle connections after 5 s, and hypothesis may take longer
                return self._send_http(request, again=True)
            raise Defect(f"{request.kind}: no response ({exc!r}) for {request}") from exc

    def _send_grpc(self, request: Request) -> tuple[int, bytes]:
        try:
            return 200, bytes(self._infer(request.body, timeout=60))
        except grpc.RpcError as exc:
            code, status, words, _ = rejection_of(exc)
            if code is None:
                raise Defect(f"grpc: {status} {words!r} without a code for {request}") from exc
            return code.http_status, json.dumps({"error": words}, separators=(",", ":")).encode()


def fuzz(
    port: int,
    grpc_port: int,
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
        grpc_port: of its gRPC.
        pid: its process, for its memory.
        count: number of inputs after the warm-up.
        seed: of the inputs.
        warm_up: inputs that are sent first and not counted: memory grows with the first of every kind.
        report_progress: called with the number of finished inputs.

    Raises:
        Defect: a response of 500 or more, one that is not a JSON error, or one with internals; a successful one
            that has not the form of its task; a valid request that fails. With the smallest input that shows it.
    """
    process = psutil.Process(pid)
    connections = Connections(port, grpc_port)
    report = Report()
    for first in range(-warm_up, count, _ROUND):
        if first == 0:
            report = Report(memory_bytes=[process.memory_info().rss])
        _round(connections, report, number=seed * 1_000_003 + first + warm_up, size=min(_ROUND, count - first))
        _send_valid(connections)
        report.memory_bytes.append(process.memory_info().rss)
        report_progress(max(first + _ROUND, 0))
    connections.close()
    return report


def _round(connections: Connections, report: Report, *, number: int, size: int) -> None:
    @examples(number, size)
    @given(REQUESTS)
    def send(request: Request) -> None:
        started = time.perf_counter()
        status, body = connections.send(request)
        route = report.routes.setdefault(request.kind, Route())
        route.statuses[status] += 1
        if status >= 400:
            route.reasons.add(_VARIES.sub(b"#", body)[:60])
        route.slowest_ms = max(route.slowest_ms, (time.perf_counter() - started) * 1000)
        # 503: Triton's queue is full, whatever the request.
        if status >= 500 or _INTERNALS.search(body) or (status != 200 and not body.startswith(b'{"error":')):
            raise Defect(f"{request.kind}: {status} {body[:300]!r} for {request}")
        if status == 200 and request.given is not None and (problems := _find_problems(request, body, request.given)):
            raise Defect(f"{request.kind}: {problems[:3]} in {body[:300]!r} for {request}")

    send()


def _find_problems(request: Request, body: bytes, given: Parameters) -> list[str]:
    """What is wrong with a response of status 200."""
    try:
        if request.kind == "grpc":
            problems = forms.find_tensor_problems(forms.read_message(body), request.model, given)
        elif request.kind == "v2 binary":
            problems = forms.find_tensor_problems(forms.read_tensors(body), request.model, given)
        else:
            document = forms.read_json(body)
            documents = document["predictions"] if request.kind == "v1" else document
            several = documents if isinstance(documents, list) else [documents]
            problems = chain.from_iterable(forms.find_problems(each, request.model, given) for each in several)
        return list(problems)
    except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
        return [f"unreadable: {exc!r}"]


def _send_valid(connections: Connections) -> None:
    status, body = connections.send(Request("good", "digits", "/predict/digits", _GOOD, FORM))
    if status != 200:
        raise Defect(f"valid request: {status} {body[:300]!r}")
