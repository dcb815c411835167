"""Codes of errors: one for every class of the transformer's tree, and no two of one meaning."""

import re
from collections.abc import Iterator
from http import HTTPStatus

import grpc
import orjson
import pytest

from environment.error_codes import GRPC_KEY, ErrorCode, read_code
from transformer.errors import Overloaded, ServingError
from transformer.rest.responses import error_body
from transformer.triton.model import ModelConfigError
from transformer.triton.status import TensorRejected

# Codes of a connection or of a route, which no class raises.
WITHOUT_CLASS = {
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.UNSUPPORTED_TRANSFER_ENCODING,
    ErrorCode.UNSUPPORTED_HTTP_VERSION,
    ErrorCode.HEAD_TOO_LARGE,
    ErrorCode.HEAD_TIMEOUT,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.SHUTTING_DOWN,
}


def tree(root: type[ServingError]) -> Iterator[type[ServingError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_class_has_a_code_of_its_own() -> None:
    classes = list(tree(ServingError))
    assert ModelConfigError in classes
    # To a client a failure of the predictor like any other.
    assert [each for each in classes if "code" not in vars(each)] == [TensorRejected]
    codes = [each.code for each in classes if each is not TensorRejected]
    assert len(set(codes)) == len(codes)
    assert set(codes) | WITHOUT_CLASS == set(ErrorCode)
    assert not set(codes) & WITHOUT_CLASS


@pytest.mark.parametrize("code", ErrorCode)
def test_code_is_a_word_with_a_status_of_each_protocol(code: ErrorCode) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert ErrorCode(str(code)) is code
    assert code.http_status == 499 or code.http_status in set(HTTPStatus)
    assert not code.grpc_status or grpc.StatusCode[code.grpc_status] is not grpc.StatusCode.OK
    # A client of gRPC retries UNAVAILABLE by itself; over HTTP the body says that it may.
    assert code.is_retryable or code.grpc_status != "UNAVAILABLE"
    assert orjson.loads(error_body(code, "what")) == {"error": "what", "code": str(code)}


def test_error_has_the_statuses_of_its_code() -> None:
    error = Overloaded("too much")
    assert (error.status, error.retry_after_s) == (429, 1)
    assert ServingError().retry_after_s is None
    assert ServingError().for_client("abc") == "internal error (request abc)"


def test_grpc_takes_the_key_of_the_metadata() -> None:
    # gRPC would abort the call of a server with one that it does not take.
    assert re.fullmatch(r"[0-9a-z_.-]+", GRPC_KEY)
    assert not GRPC_KEY.startswith("grpc-")
    assert not GRPC_KEY.endswith("-bin")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"error": "full", "code": "queue_full"}', ErrorCode.QUEUE_FULL),
        (b'{"code": "model_not_found"}', ErrorCode.MODEL_NOT_FOUND),
        ('{"error": "full", "code": "of_a_later_release"}', None),
        ('{"error": "full", "code": 429}', None),
        ('{"error": "full"}', None),
        ('["queue_full"]', None),
        ("queue_full", None),
        (b"\xff", None),
    ],
)
def test_code_is_read_from_a_body(body: str | bytes, code: ErrorCode | None) -> None:
    assert read_code(body) is code
