"""Faults of the head of a request; whole requests are in tests/faults/test_connections.py."""

import pytest

from transformer.rest.request_head import Headers, find_fault

HOST = (b"host", b"localhost:8080")
CODING, LENGTH = b"transfer-encoding", (b"content-length", b"1")


def status(version: str, *headers: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/") -> int:
    fault = find_fault(version, method, target, headers)
    return 0 if fault is None else fault.code.http_status


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", [HOST]),
        ("1.1", [(b"host", b"")]),
        ("1.1", [(b"host", b" a.example\t")]),
        ("1.1", [HOST, LENGTH]),
        ("1.1", [HOST, (CODING, b"chunked")]),
        ("1.1", [HOST, (CODING, b" Chunked ")]),
        ("1.0", []),
        ("1.0", [HOST, LENGTH]),
    ],
)
def test_good_head_has_no_fault(version: str, headers: Headers) -> None:
    assert find_fault(version, b"POST", b"/predict/iris?a=%00", headers) is None


@pytest.mark.parametrize(
    ("version", "headers", "wanted"),
    [
        ("0.9", [], 400),
        ("2.0", [HOST], 505),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("1.0", [(b"host", b"a b")], 400),
        ("1.1", [(b"host", b"a, b")], 400),
        ("1.1", [(b"host", b"\xff")], 400),
        ("1.1", [(b"host", b"user@localhost")], 400),
        ("1.0", [(CODING, b"chunked")], 400),
        ("1.1", [HOST, (CODING, b"chunked"), LENGTH], 400),
        ("1.1", [HOST, (CODING, b"")], 400),
        ("1.1", [HOST, (CODING, b"gzip")], 400),
        ("1.1", [HOST, (CODING, b"identity")], 400),
        ("1.1", [HOST, (CODING, b"xchunked")], 400),
        ("1.1", [HOST, (CODING, b"chunked;a=b")], 400),
        ("1.1", [HOST, (CODING, b"chunked, gzip")], 400),
        ("1.1", [HOST, (CODING, b"chunked, chunked")], 400),
        ("1.1", [HOST, (CODING, b"chunked"), (CODING, b"chunked")], 400),
        ("1.1", [HOST, (CODING, b"gzip, chunked")], 501),
        ("1.1", [HOST, (CODING, b"gzip"), (CODING, b"chunked")], 501),
    ],
)
def test_faults_of_version_host_and_framing(version: str, headers: Headers, wanted: int) -> None:
    assert status(version, *headers, method=b"POST") == wanted


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/a", 0),
        (b"//a", 0),
        (b"http://localhost:8080/a", 0),
        (b"http://localhost", 0),
        (b"*", 400),
        (b"*a", 400),
        (b"/a#b", 400),
        (b"http://localhost/#b", 400),
        (b"http:///a", 400),
        (b"http://user@localhost/", 400),
        (b"http://[::1/", 400),
        (b"localhost:80", 400),
    ],
)
def test_faults_of_the_target(target: bytes, wanted: int) -> None:
    assert status("1.1", HOST, target=target) == wanted


def test_only_options_may_mean_the_server() -> None:
    assert status("1.1", HOST, method=b"OPTIONS", target=b"*") == 0
