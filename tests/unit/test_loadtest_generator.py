"""The light load generator, against servers that respond, fail, stall and hang up."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

from loadtest.generator.load import Load, Plan
from loadtest.generator.loops import Outcome, Schedule, measure
from loadtest.generator.requests import Request, multipart
from loadtest.generator.responses import Response, Result
from tests.support.http_server import Quiet, run_server
from tests.support.responded import stale, versions

RESPONSE = {"model": {"version": "7"}, "predictions": [{"class": "b", "confidence": 0.5}, {"class": "a"}]}


class Handler(Quiet, BaseHTTPRequestHandler):
    """Responds as the first segment of the path says."""

    protocol_version = "HTTP/1.1"
    connections: list[int]
    stalled_until: float

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address[1])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(max(0.0, self.stalled_until - time.monotonic()))
        way = self.path.split("/")[1]
        if way == "hang-up":
            self.close_connection = True
            return
        body = json.dumps(RESPONSE).encode()
        self.send_response({"unavailable": 503}.get(way, 200))
        self.send_header("Content-Length", str(len(body)))
        if way == "close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[: 5 if way == "cut" else None])
        self.close_connection |= way == "cut"


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Own", (Handler,), {"connections": [], "stalled_until": 0.0})
    with run_server(handler) as url:
        yield url.removeprefix("http://"), handler


def send(address: str, path: str, *, min_bytes: int = 0, **schedule: float) -> Outcome:
    request = Request("kind", path, b"body", min_bytes=min_bytes)
    return measure([request], Schedule(address, "", **{"limit_s": 0.5, **schedule}))  # type: ignore[arg-type]


def test_connections_are_kept(server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    outcome = send(address, "/predict", connections=3)
    assert not outcome.result.failures
    assert len(outcome.result.responses) > 30
    assert {response.connection for response in outcome.result.responses} == {0, 1, 2}
    assert len(handler.connections) == 3
    assert 0 < outcome.cpu_s < outcome.seconds


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/unavailable", "503", '503 {"model"'),
        ("/hang-up", "", "ConnectionResetError: closed without a response"),
        ("/cut", "", "ConnectionAbortedError: closed before the end of the response"),
    ],
)
def test_failures_have_the_cause(server: tuple[str, type[Handler]], path: str, status: str, error: str) -> None:
    result = send(server[0], path, connections=2).result
    assert len(result.failures) == len(result.responses) >= 2
    assert {response.status for response in result.failures} == {status}
    assert all(response.error.startswith(error) for response in result.failures), result.failures[0]


def test_small_body_fails(server: tuple[str, type[Handler]]) -> None:
    (response, *_) = send(server[0], "/predict", min_bytes=10**6).result.responses
    assert response.status == "200"
    assert "expected at least 1000000" in response.error


def test_connection_that_the_server_closes_is_opened_again(server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    result = send(address, "/close", connections=1).result
    assert not result.failures
    assert len(handler.connections) == len(result.responses) > 2


def test_no_listener_is_a_failure_of_every_request() -> None:
    result = send("127.0.0.1:1", "/predict", limit_s=0.2, connections=1).result
    assert 2 <= len(result.failures) == len(result.responses) < 10
    assert result.failures[0].error.startswith("ConnectionRefusedError")


def test_request_without_a_response_in_time_fails(server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    handler.stalled_until = time.monotonic() + 1.5
    (response,) = send(address, "/predict", connections=1, timeout_s=0.3, limit_s=0.1).result.responses
    assert response.error == "TimeoutError: no response within 0.3 s"
    assert 0.25 <= response.seconds < 1  # the loop's timers are a clock tick early or late


def test_open_loop_sends_at_its_rate_and_a_stall_delays_all_requests_that_were_due(
    server: tuple[str, type[Handler]],
) -> None:
    address, handler = server
    handler.stalled_until = time.monotonic() + 0.6
    outcome = send(address, "/predict", rate=50.0, limit_s=1.0, connections=100)
    assert not outcome.result.failures
    assert len(outcome.result.responses) == 50
    slow = [response for response in outcome.result.responses if response.seconds > 0.1]
    assert len(slow) >= 15
    starts = sorted(response.started for response in outcome.result.responses)
    assert starts[-1] - starts[0] == pytest.approx(49 / 50, abs=0.001)  # when they were due, not when they were sent


def test_open_loop_of_poisson_begins_requests_independently_of_each_other(server: tuple[str, type[Handler]]) -> None:
    result = send(server[0], "/predict", rate=400.0, poisson=True, limit_s=1.0, connections=200).result
    gaps_s = np.diff(sorted(response.started for response in result.responses))
    assert np.mean(gaps_s) == pytest.approx(1 / 400, rel=0.2)
    assert np.std(gaps_s) == pytest.approx(np.mean(gaps_s), rel=0.2)  # as of an exponential distribution


def test_open_loop_says_what_it_could_not_send(server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    handler.stalled_until = time.monotonic() + 0.8
    result = send(address, "/predict", rate=20.0, limit_s=0.5, connections=2).result
    assert (len(result.responses), len(result.failures)) == (10, 8)
    assert {response.error for response in result.failures} == {"not sent: all 2 connections were busy"}


def test_load_reads_what_responses_say_and_ends_with_its_parent(server: tuple[str, type[Handler]]) -> None:
    with Load(Plan(server[0], "", "m", row=[1.0, 2.0], kinds=("predict",), pause_s=0.01)) as load:
        first = load.wait_for_version("7", seconds=30)
        assert first is not None
        assert (first.kind, first.top, first.confidence, first.labels) == ("predict", "b", 0.5, ("b", "a"))
        assert not load.wait_for(lambda response: bool(response.error), seconds=0.3)
        result = load.stop()
    assert versions(result) == ["7"]
    assert load.process.returncode == 0


def test_form_has_the_image_and_its_fields() -> None:
    request = multipart("/predict/m", b"\xff\xd8image", confidence="0.25")
    boundary = request.headers["Content-Type"].removeprefix("multipart/form-data; boundary=").encode()
    fields = request.body.split(b"--" + boundary)
    assert len(fields) == 4
    assert b'name="confidence"\r\n\r\n0.25' in fields[1]
    assert b'name="image"; filename="image.jpg"' in fields[2]
    assert fields[2].endswith(b"\r\n\r\n\xff\xd8image\r\n")


def test_response_of_a_replaced_version_is_stale_where_its_request_started_afterwards() -> None:
    # The second was in progress when the version was replaced, and was read after the first response of the new one.
    spans = [("1", 0.0, 1.0), ("2", 1.0, 2.0), ("1", 0.5, 2.5), ("2", 3.0, 3.5), ("3", 4.0, 4.5), ("2", 4.6, 4.8)]
    responses = [Response(0, "v2", started, ended - started, "200", "", name) for name, started, ended in spans]
    result = Result(responses)
    assert versions(result) == ["1", "2", "3"]
    assert stale(result) == [responses[-1]]


def test_figures_of_a_result() -> None:
    responses = [Response(0, "v2", float(at), 0.5, "200", "", "1" if at < 5 else "2") for at in range(10)]
    responses[3] = responses[3]._replace(error="503", version="", seconds=2.0)
    result = Result(responses)
    assert versions(result) == ["1", "2"]
    assert (result.failures, len(result.successes)) == ([responses[3]], 9)
    assert (result.percentile(50), result.percentile(99.9)) == (0.5, 2.0)
    assert [response.started for response in result.between(2, 5).responses] == [2.0, 3.0, 4.0]
    assert [response.started for response in result.ended_before(2.6).responses] == [0.0, 1.0, 2.0]
    assert result.per_second == pytest.approx(9 / 9.5)
    assert Result([]).per_second == 0
