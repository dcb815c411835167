"""Codes of errors as they come over the wire: each is in the enumeration, under the status that belongs to it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from environment.error_codes import GRPC_KEY, ErrorCode


class Rejection(NamedTuple):
    """An error of gRPC; its own have no code."""

    code: ErrorCode | None
    status: grpc.StatusCode
    words: str
    retry_after: str | None


def code_of(response: httpx.Response) -> ErrorCode:
    """The code of an error."""
    code = code_in(response.status_code, response.content)
    assert ("Retry-After" in response.headers) == code.is_retryable, code
    return code


def event_hooks(base_url: str) -> dict[str, list[Callable[..., Any]]]:
    """Hooks of a client: every error response of the server at a URL has a code, whatever the test is about."""
    server = httpx.URL(base_url)

    def check(response: httpx.Response) -> None:
        url = response.request.url
        if response.is_error and (url.host, url.port) == (server.host, server.port):
            response.read()
            if response.request.method != "HEAD":
                code_of(response)

    return {"response": [check]}


def rejection_of(call: Any) -> Rejection:
    """The error that a call of gRPC ended with."""
    trailing = dict(call.trailing_metadata() or ())
    code = ErrorCode(trailing[GRPC_KEY]) if GRPC_KEY in trailing else None
    assert code is None or code.grpc_status == call.code().name
    assert code is None or code.is_retryable == ("retry-after" in trailing)
    return Rejection(code, call.code(), call.details() or "", trailing.get("retry-after"))


def rejection(method: Callable[..., Any], *arguments: Any, **options: Any) -> Rejection:
    """The error that a method of gRPC raises."""
    with pytest.raises(grpc.RpcError) as raised:
        method(*arguments, **options)
    return rejection_of(raised.value)


def code_in(status: int, body: bytes) -> ErrorCode:
    """The code of an error, whose body holds nothing else but its text, and `success` in DeepStack's dialect."""
    document = json.loads(body)
    assert document.pop("success", False) is False
    assert list(document) == ["error", "code"], document
    assert isinstance(document["error"], str)
    assert document["error"]
    code = ErrorCode(document["code"])
    assert code.http_status == status, document
    return code
