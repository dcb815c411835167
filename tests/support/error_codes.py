"""Codes of errors as they come over the wire: each is in the enumeration, under the status that belongs to it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from environment.error_codes import GRPC_KEY, ErrorCode


class Rejection(NamedTuple):
    """An error of gRPC."""

    code: ErrorCode | None
    status: grpc.StatusCode
    words: str


def code_of(response: httpx.Response) -> ErrorCode:
    """The code of an error."""
    code = code_in(response.status_code, response.content)
    assert ("Retry-After" in response.headers) == code.is_retryable, code
    return code


def event_hooks(base_url: str) -> dict[str, list[Callable[..., Any]]]:
    """Of a client of a server at a URL: whatever a test is about, every error that it meets has a code."""
    server = httpx.URL(base_url)

    def check(response: httpx.Response) -> None:
        url = response.request.url
        if response.is_error and (url.host, url.port) == (server.host, server.port):
            response.read()
            if response.request.method != "HEAD":
                code_of(response)

    return {"response": [check]}


def rejection_of(call: Any) -> Rejection:
    """The error that a call of gRPC ended with; gRPC's own have no code."""
    given = dict(call.trailing_metadata() or ()).get(GRPC_KEY)
    code = None if given is None else ErrorCode(given)
    assert code is None or code.grpc_status == call.code().name
    return Rejection(code, call.code(), call.details() or "")


def rejection(method: Callable[..., Any], *arguments: Any, **options: Any) -> Rejection:
    """The error that a method of gRPC raises."""
    with pytest.raises(grpc.RpcError) as raised:
        method(*arguments, **options)
    return rejection_of(raised.value)


def code_in(status: int, body: bytes) -> ErrorCode:
    """The code of an error, whose body holds nothing else but its text."""
    document = json.loads(body)
    assert list(document) == ["error", "code"], document
    assert isinstance(document["error"], str)
    assert document["error"]
    code = ErrorCode(document["code"])
    assert code.http_status == status, document
    return code
