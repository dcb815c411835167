"""The running server against its own OpenAPI: requests as schemathesis makes them of it, fitting and not."""

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS as KNOWN
from schemathesis.core.result import Ok

from tests.support.stack import ROOT, Stack

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
MODELS = ["digits", "digit-finder", "iris"]
TELLS_TOO_MUCH = re.compile(r"Traceback|site-packages|\.py\b|/usr/|/home/|/tmp/|" + re.escape(str(ROOT)))
DEADLINE = "X-Request-Timeout-Ms"
QUOTED = re.compile(r"'[^']*'")


@pytest.fixture(scope="module")
def operations(stack: Stack) -> list[Any]:
    """All operations of the OpenAPI document of the server."""
    url = f"http://127.0.0.1:{stack.http_port}/openapi.json"
    schema = schemathesis.openapi.from_url(url)  # which brings its checks
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def test_every_operation_is_described(operations: list[Any]) -> None:
    paths = {(operation.method.upper(), operation.path) for operation in operations}
    assert {("POST", "/predict/{model}"), ("POST", "/v2/models/{model}/infer"), ("GET", "/status")} <= paths
    assert len(paths) >= 18


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_responses_are_those_of_the_description(stack: Stack, operations: list[Any], mode: GenerationMode) -> None:
    statuses: set[int] = set()
    for operation in operations:
        requires_key = operation.method.upper() == "POST"
        if not requires_key and mode is GenerationMode.NEGATIVE:
            continue  # a path alone fits its description, whatever it is

        @settings(max_examples=30 if requires_key else 4)
        @given(operation.as_strategy(generation_mode=mode), st.sampled_from([*MODELS, None]))
        def send(case: Any, model: str | None) -> None:
            if model and "model" in (case.path_parameters or {}):
                case.path_parameters["model"] = model
            allow_time(case)
            response = case.call()
            statuses.add(response.status_code)
            message = QUOTED.sub("", response.text)  # what was sent may be anything
            assert response.status_code < 400 or not TELLS_TOO_MUCH.search(message)
            case.validate_response(response, checks=KNOWN.get_by_names(CHECKS))

        send()
    assert statuses & {400, 404, 415}
    if mode is GenerationMode.POSITIVE:
        assert 200 in statuses
    assert "Traceback" not in stack.log.read_text(errors="replace")


def allow_time(case: Any) -> None:
    """A deadline that is valid, and so short that 504 is the right response, says nothing about the description."""
    text = str((case.headers or {}).get(DEADLINE, ""))
    if text.isascii() and text.isdecimal() and 0 < int(text) < 10_000:
        case.headers[DEADLINE] = "10000"
