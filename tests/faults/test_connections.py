"""Connections with incomplete or malformed requests, or without any."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse

import psutil
import pytest

from environment.error_codes import ErrorCode
from tests.support.error_codes import code_in
from tests.support.metrics import scrape, value
from tests.support.stack import wait_until
from tests.support.transformer import Transformer, start_transformer

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"
PREDICT = b"POST /predict/digits HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
OPENAPI = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = PREDICT + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    """A transformer that waits a second for what does not come; it needs no Triton to say so."""
    log = tmp_path_factory.mktemp("connections") / "log"
    short = {"BODY_TIMEOUT_S": "1", "KEEP_ALIVE_S": "1", "REQUEST_TIMEOUT_S": "3"}
    variables = {f"TRANSFORMER_{name}": value for name, value in short.items()}
    with start_transformer("127.0.0.1:9", log, variables=variables) as transformer:
        yield transformer
    assert "Traceback" not in log.read_text()


@pytest.fixture(autouse=True)
def _goes_on(patient: Transformer) -> Iterator[None]:
    """After every test here the next request gets its response."""
    yield
    assert patient.http.get("/v2/health/live").is_success


def connect(transformer: Transformer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", transformer.http_port), timeout=30)


def read_to_end(client: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    data = b""
    while True:
        try:
            more = client.recv(2**16)
        except ConnectionResetError:  # it closed before it had read everything
            return data
        if not more:
            return data
        data += more


def drip(client: socket.socket, piece: bytes) -> bytes:
    """Send this again and again until the server closes, for at most 20 s."""
    end, data = time.monotonic() + 20, b""
    client.settimeout(0.05)
    while time.monotonic() < end:
        try:
            client.sendall(piece)
            if not (more := client.recv(2**16)):
                return data
            data += more
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return data
    raise AssertionError(f"still open after 20 s; got {data[:300]!r}")


def code_at_end(data: bytes) -> ErrorCode:
    """The code of the error that a connection ended with."""
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return code_in(int(head.split()[1]), body)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", ErrorCode.MALFORMED_REQUEST),  # TLS to a port that speaks none
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (b"\0" * 100, ErrorCode.MALFORMED_REQUEST),
        (b"CONNECT evil:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (LIVE + b"X-Request-Id: a\0b\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (LIVE + b"no colon\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (PREDICT + b"Content-Length: -1\r\n\r\nx", ErrorCode.MALFORMED_REQUEST),
        (PREDICT + b"Content-Length: x\r\n\r\nx", ErrorCode.MALFORMED_REQUEST),
        (PREDICT + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nx", ErrorCode.MALFORMED_REQUEST),
        (PREDICT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", ErrorCode.MALFORMED_REQUEST),
        (PREDICT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ErrorCode.MALFORMED_REQUEST),
        (CHUNKED + b"ZZ\r\n", ErrorCode.MALFORMED_REQUEST),
        (CHUNKED + b"f" * 17 + b"\r\n", ErrorCode.MALFORMED_REQUEST),
        (LIVE + b"X: " + b"x" * 2**20, ErrorCode.HEAD_TOO_LARGE),
        (LIVE + b"a: b\r\n" * 2**17, ErrorCode.HEAD_TOO_LARGE),
        (b"GET /" + b"x" * 2**20, ErrorCode.HEAD_TOO_LARGE),
        # The parser would assemble such a line again with every piece of it.
        (CHUNKED + b"1\r\nx\r\n0\r\na: " + b"x" * 2**20, ErrorCode.HEAD_TOO_LARGE),
        (CHUNKED + b"1;extension=" + b"x" * 2**20, ErrorCode.HEAD_TOO_LARGE),
        (LIVE, ErrorCode.HEAD_TIMEOUT),
        (b"GET", ErrorCode.HEAD_TIMEOUT),
        (PREDICT + b"Content-Length: 9\r\n\r\nhalf", ErrorCode.BODY_TIMEOUT),
        (CHUNKED + b"4\r\nhalf\r\n", ErrorCode.BODY_TIMEOUT),
    ],
)
def test_bytes_that_are_no_request_are_rejected_and_counted(patient: Transformer, sent: bytes, code: ErrorCode) -> None:
    status = str(code.http_status)
    before = value(scrape(patient.http), "nereid_requests_total", status=status)
    with connect(patient) as client:
        with suppress(ConnectionResetError, BrokenPipeError):  # the response comes before the end
            client.sendall(sent)
        response = read_to_end(client)
        if not response and len(sent) >= 2**20:
            return  # the server closed with unread bytes: TCP then drops the response
        assert code_at_end(response) is code
    assert value(scrape(patient.http), "nereid_requests_total", status=status) == before + 1


LINE, FIELD, CODING = b"GET /v2/health/live", b"Host: localhost\r\n", b"Transfer-Encoding: "
BEHIND = LIVE + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (LINE + b" HTTP/1.1\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\n" + FIELD * 2 + b"\r\n", 400),
        (LINE + b" HTTP/1.1\r\n" + FIELD + b"Host: evil\r\n\r\n", 400),
        (LINE + b" HTTP/1.0\r\n" + FIELD * 2 + b"\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: http://localhost\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: user@localhost\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: localhost:http\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (b"GET http://user@localhost/ HTTP/1.1\r\n" + FIELD + b"\r\n", 400),
        (b"GET http:///v2 HTTP/1.1\r\n" + FIELD + b"\r\n", 400),
        (b"GET *v2 HTTP/1.1\r\n" + FIELD + b"\r\n", 400),
        (b"GET /v2#a HTTP/1.1\r\n" + FIELD + b"\r\n", 400),
        (LINE + b"\r\n\r\n", 400),
        (LINE + b" HTTP/0.9\r\n\r\n", 400),
        (LINE + b" HTTP/1.2\r\n" + FIELD + b"\r\n", 400),
        (LINE + b" HTTP/1\r\n" + FIELD + b"\r\n", 400),
        (LINE + b" HTTP/11.1\r\n" + FIELD + b"\r\n", 400),
        (LINE + b" http/1.1\r\n" + FIELD + b"\r\n", 400),
        (LINE + b" HTTP/2.0\r\n" + FIELD + b"\r\n", 505),
        (LINE + b" HTTP/3.0\r\n" + FIELD + b"\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (LINE + b" HTTP/1.0\r\n" + CODING + b"chunked\r\n\r\n0\r\n\r\n", 400),
        (LIVE + CODING + b"chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (LIVE + b"Content-Length: 5\r\n" + CODING + b"chunked\r\n\r\n0\r\n\r\n", 400),
        *((LIVE + CODING + coding + b"\r\n\r\n0\r\n\r\n", status) for coding, status in (
            (b"gzip", 400), (b"identity", 400), (b"xchunked", 400), (b"chunked;a=b", 400), (b"\x0bchunked", 400),
            (b"", 400), (b"chunked, gzip", 400), (b"chunked, chunked", 400),
            (b"chunked\r\n" + CODING + b"chunked", 400),
            (b"gzip, chunked", 501), (b"gzip\r\n" + CODING + b"chunked", 501),
        )),
        *((LIVE + b"Content-Length: " + length + b"\r\n\r\nx", 400) for length in (
            b"1\r\nContent-Length: 1", b"1, 1", b"+1", b"0x1", b"1 1", b"", b"1\r\nContent-Length:",
        )),
        (LIVE + b"X: a\r\n b\r\n\r\n", 400),
        (LIVE + b"X:\r\n\tb\r\n\r\n", 400),
        (LINE + b" HTTP/1.1\r\n " + FIELD + b"\r\n", 400),
        (LIVE + b"X : a\r\n\r\n", 400),
        (LIVE + b"Content-Length\t: 5\r\n\r\n", 400),
        (LIVE + b": a\r\n\r\n", 400),
        (LIVE + b"X: a\rY: b\r\n\r\n", 400),
        (LIVE + b"X: a\nY: b\r\n\r\n", 400),
        (LIVE + b"X: a\r\n\n", 400),
        (LIVE[:-2] + b"\n\n", 400),
        (LINE + b" HTTP/1.1\n" + FIELD + b"\r\n", 400),
        (LINE + b" HTTP/1.1\r" + FIELD + b"\r\n", 400),
    ],
)  # fmt: skip
def test_requests_that_rfc_9112_forbids_are_rejected(patient: Transformer, sent: bytes, status: int) -> None:
    # In one piece and in two, and behind a good request: nothing behind it gets a response.
    for before, split in ((b"", 0), (b"", len(sent) - 1), (LIVE + b"\r\n", 0)):
        with connect(patient) as client:
            with suppress(ConnectionResetError, BrokenPipeError):
                client.sendall(before + sent[:split])
                time.sleep(0.01 if split else 0)
                client.sendall(sent[split:] + BEHIND)
            *good, last = re.split(rb"(?=HTTP/1\.1 )", read_to_end(client))[1:]
            assert [response.endswith(b'{"live":true}') for response in good] == [True] * before.count(LIVE)
            assert code_at_end(last).http_status == status, last


UPGRADES = [
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
]


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_body_after_an_upgrade_header_is_a_body(patient: Transformer, upgrade: bytes, pieces: int) -> None:
    # Java's client requests HTTP/2 like that; the parser by itself reads the body as the next request.
    inner = LIVE + b"X-Request-Id: inner\r\n\r\n"
    for framing, body in (
        (b"Content-Length: %d\r\n\r\n" % len(inner), inner),
        (CODING + b"chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
    ):
        whole = (LIVE.replace(b"GET", b"POST") + upgrade + framing + body) * 2 + BEHIND
        size = -(-len(whole) // pieces)
        with connect(patient) as client:
            for start in range(0, len(whole), size):
                client.sendall(whole[start : start + size])
                time.sleep(0.01)
            responses = re.split(rb"(?=HTTP/1\.1 )", read_to_end(client))[1:]
        assert [response.split()[1] for response in responses] == [b"405", b"405", b"200"]
        assert b"inner" not in b"".join(responses)


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_requests_with_an_upgrade_header_have_the_same_limits(patient: Transformer, upgrade: bytes) -> None:
    with connect(patient) as client:
        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall((LIVE + upgrade + b"\r\n") * 2000)
        last = re.split(rb"(?=HTTP/1\.1 )", read_to_end(client))[-1]
    assert not last.endswith(b"}") or code_at_end(last) is ErrorCode.OVERLOADED


@pytest.mark.parametrize("begin", [b"", b"\r\n", LIVE + b"\r\n", LIVE + b"\r\n\r\n"])
def test_connection_without_a_request_is_closed(patient: Transformer, begin: bytes) -> None:
    with connect(patient) as client:
        client.sendall(begin)
        response = drip(client, b"\r\n") if begin else read_to_end(client)
        assert response.count(b"HTTP/1.1") == response.count(b"HTTP/1.1 200") == begin.count(b"GET")


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (LIVE, b"a: b\r\n", 408),
        (CHUNKED, b"1;extension=%s\r\nx\r\n" % (b"y" * 50), 504),  # the request's own time is over
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 50, 408),  # behind the last chunk
        (PREDICT + b"Content-Length: 1000000\r\n\r\n", b"x", 504),
        (PREDICT + b"Content-Length: 99999999999\r\n\r\n", b"x" * 1000, 413),  # goes on after the response
    ],
    ids=["head", "chunks", "trailers", "body", "refused"],
)
def test_slow_sender_gets_an_error_and_is_closed(patient: Transformer, begin: bytes, piece: bytes, status: int) -> None:
    with connect(patient) as client:
        client.sendall(begin)
        assert drip(client, piece).split()[1] == b"%d" % status


def test_many_slow_senders_delay_no_other_client(patient: Transformer) -> None:
    process = psutil.Process(patient.process.pid)
    before = process.num_fds()
    clients = [connect(patient) for _ in range(200)]
    for client in clients:
        client.sendall(LIVE)
    assert patient.http.get("/v2/health/live", timeout=10).is_success
    assert all(code_at_end(read_to_end(client)) is ErrorCode.HEAD_TIMEOUT for client in clients)
    for client in clients:
        client.close()
    wait_until(lambda: process.num_fds() < before + 20, log=patient.log)


def test_endless_trailers_are_not_kept(patient: Transformer) -> None:
    process = psutil.Process(patient.process.pid)
    before = process.memory_info().rss
    with connect(patient) as client:
        client.sendall(CHUNKED + b"1\r\nx\r\n0\r\n")
        with suppress(ConnectionResetError, BrokenPipeError):  # its time was over
            for _ in range(200):
                client.sendall(b"abcdefgh: %s\r\n" % (b"x" * 1000) * 256)
    assert process.memory_info().rss - before < 30 * 2**20  # of 50 MB that were sent


def test_pipelined_requests_get_their_responses(patient: Transformer) -> None:
    with connect(patient) as client:
        client.sendall((LIVE + b"\r\n") * 20 + LIVE + b"Connection: close\r\n\r\n")
        assert read_to_end(client).count(b'{"live":true}') == 21


def test_good_request_before_a_bad_one_gets_its_response(patient: Transformer) -> None:
    with connect(patient) as client:
        client.sendall(LIVE + b"\r\n")
        response = HTTPResponse(client)
        response.begin()
        assert json.loads(response.read()) == {"live": True}
        client.sendall(b"nonsense\r\n\r\n")
        assert code_at_end(read_to_end(client)) is ErrorCode.MALFORMED_REQUEST


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", CHUNKED + b"ZZ\r\n"])
def test_responses_to_earlier_requests_precede_the_error(patient: Transformer, bad: bytes) -> None:
    with connect(patient) as client:
        client.sendall((LIVE + b"\r\n") * 3 + bad)
        *good, last = re.split(rb"(?=HTTP/1\.1 )", read_to_end(client))[1:]
        assert [response.endswith(b'{"live":true}') for response in good] == [True] * 3
        assert code_at_end(last) is ErrorCode.MALFORMED_REQUEST


def test_endless_pipelined_requests_are_rejected_and_closed(patient: Transformer) -> None:
    with connect(patient) as client:
        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall((LIVE + b"\r\n") * 20_000)
        response = read_to_end(client)
    if not response.endswith(b"}"):
        return  # closed with unread bytes: TCP then drops responses
    *good, last = re.split(rb"(?=HTTP/1\.1 )", response)[1:]
    assert {response.endswith(b'{"live":true}') for response in good} == {True}
    assert code_at_end(last) is ErrorCode.OVERLOADED
    assert b"retry-after: 1" in last
    assert 100 < len(good) < 20_000


@pytest.mark.parametrize("fields", [b"", b"Host: localhost\r\n"])
def test_clients_of_http_1_0_get_a_response_and_are_closed(patient: Transformer, fields: bytes) -> None:
    with connect(patient) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.0\r\n%s\r\n" % fields)
        assert read_to_end(client).endswith(b'{"live":true}')


def test_websockets_are_not_supported(patient: Transformer) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n"
    with connect(patient) as client:
        client.sendall(LIVE + upgrade + b"\r\n")
        response = HTTPResponse(client)
        response.begin()
        assert response.status == 200  # the header is not heeded


def test_unread_responses_are_not_kept(patient: Transformer) -> None:
    process = psutil.Process(patient.process.pid)
    before = process.num_fds()
    clients = [connect(patient) for _ in range(5)]
    for client in clients:
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            client.settimeout(2)
            for _ in range(10):  # responses of 30 kB and more
                client.sendall(OPENAPI * 50)
                time.sleep(0.2)
    wait_until(lambda: process.num_fds() <= before, log=patient.log)
    for client in clients:
        client.close()


def test_unread_end_of_a_response_is_not_kept(patient: Transformer) -> None:
    # Of some responses few bytes exceed the system's buffers: fewer than asyncio's high-water mark.
    process = psutil.Process(patient.process.pid)
    before = process.num_fds()
    clients = []
    for count in range(30, 101):
        clients.append(client := socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", patient.http_port))
        client.sendall(OPENAPI * count)
    wait_until(lambda: process.num_fds() <= before, log=patient.log)
    for client in clients:
        client.close()
