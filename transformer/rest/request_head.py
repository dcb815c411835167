"""Faults in the head of a request that a server must reject by RFC 9112 and the parser (llhttp) accepts."""

from collections.abc import Sequence
from typing import NamedTuple

from environment.error_codes import ErrorCode
from environment.listening import read_name, split_target

Headers = Sequence[tuple[bytes, bytes]]

_SHOWN = 60


class Fault(NamedTuple):
    """Why a head is rejected.

    Attributes:
        code: of the error.
        message: what, got and expected.
    """

    code: ErrorCode
    message: str


def find_fault(version: str, method: bytes, target: bytes, headers: Headers) -> Fault | None:
    """The first fault of a head, or None.

    Args:
        version: "1.1", as the parser read it; "0.9" also where the request line has none.
        method: of the request line.
        target: of the request line.
        headers: names in lower case.
    """
    return _fault_of_version(version) or _fault_of_target(method, target) or _fault_of_fields(version, headers)


def _fault_of_version(version: str) -> Fault | None:
    if version in {"1.0", "1.1"}:
        return None
    # A request line without a version is malformed; one with an unsupported version is not.
    code = ErrorCode.MALFORMED_REQUEST if version == "0.9" else ErrorCode.UNSUPPORTED_HTTP_VERSION
    return Fault(code, f"request line: got HTTP/{version} or no version, expected HTTP/1.1")


def _fault_of_target(method: bytes, target: bytes) -> Fault | None:
    if target[:1] == b"/" and b"#" not in target:
        return None
    authority, rest = split_target(target)
    if authority is None:
        is_good = target == b"*" and method == b"OPTIONS"
    else:
        is_good = bool(read_name(authority.decode("latin-1"))) and b"#" not in rest
    return None if is_good else _bad("request target", target, "a path, or the URL of one on this server")


def _fault_of_fields(version: str, headers: Headers) -> Fault | None:
    hosts, codings, lengths = [], [], 0
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"content-length":
            lengths += 1
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        return Fault(ErrorCode.MALFORMED_REQUEST, f"Host: got {len(hosts)} of it, expected one")
    if hosts and read_name(hosts[0].strip(b" \t").decode("latin-1")) is None:
        return _bad("Host", hosts[0], "<name or address>[:<port>]")
    if not codings:
        return None
    coding = b",".join(codings).strip(b" \t").lower()
    if version == "1.0" or lengths:
        return _bad("Transfer-Encoding", coding, "none in HTTP/1.0, and none beside Content-Length")
    if coding == b"chunked":
        return None
    # If the last coding is not chunked, the end of the body is unknown; otherwise a coding is unsupported.
    before, _, last = coding.rpartition(b",")
    is_whole = last.strip(b" \t") == b"chunked" and b"chunked" not in before
    code = ErrorCode.UNSUPPORTED_TRANSFER_ENCODING if is_whole else ErrorCode.MALFORMED_REQUEST
    return _bad("Transfer-Encoding", coding, "chunked alone", code)


def _bad(what: str, got: bytes, expected: str, code: ErrorCode = ErrorCode.MALFORMED_REQUEST) -> Fault:
    return Fault(code, f"{what}: got {got.decode('latin-1')[:_SHOWN]!r}, expected {expected}")
