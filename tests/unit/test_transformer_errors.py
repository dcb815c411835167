"""The text of an error for clients, and the text for the log."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from tests.support.described import DETECTOR, TABLE
from transformer.errors import InvalidRequest, NoServableVersion, PredictorError, ServingError
from transformer.imaging.decoding import decode
from transformer.rest.body import read_instances, read_items
from transformer.rest.multipart import read_parts
from transformer.rest.v2_codec import read_document, read_header_length
from transformer.tasks.detect import DETECT
from transformer.tasks.tabular import TABULAR
from transformer.triton.tensors import Tensor, check, check_form

SENT = "5301425"  # text or number, in every request below
NUMBER = int(SENT)
INSTANCES: dict[str, Any] = {"images": True, "max_bytes": 99}
LIMITS = INSTANCES | {"max_items": 9}


def read_v2(**changes: Any) -> Any:
    body = orjson.dumps({"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1]} | changes]})
    return read_document(body, len(body))


def fail_with(message: str) -> Callable[[], Any]:
    """In the words of Triton or of a library."""

    def fail() -> None:
        raise InvalidRequest(message)

    return fail


@pytest.mark.parametrize(
    ("send", "is_quoted"),
    [
        (lambda: TABULAR.preprocess([[1, [NUMBER, 3.5]]], TABLE), True),
        (lambda: TABULAR.preprocess([[1, NUMBER * 10**40]], TABLE), True),
        (lambda: TABULAR.preprocess([[1, SENT]], TABLE), True),
        (lambda: TABULAR.preprocess([[1, {SENT: 1}]], TABLE), True),
        (lambda: TABULAR.preprocess([{SENT: 1}], TABLE), True),
        (lambda: TABULAR.preprocess(np.array([[1, float(f"{SENT}e40")]]), TABLE), True),
        (lambda: DETECT.read_options({"confidence": NUMBER}, DETECTOR), True),
        (lambda: DETECT.read_options({"max_detections": -NUMBER}, DETECTOR), True),
        (lambda: DETECT.read_options({"classes": SENT}, DETECTOR), True),
        (lambda: DETECT.read_options({"classes": [[NUMBER]]}, DETECTOR), True),
        (lambda: DETECT.read_options({SENT: 1}, DETECTOR), True),
        (lambda: read_v2(shape=[-NUMBER]), True),
        (lambda: read_v2(shape=[float(f"{SENT}.5")]), True),
        (lambda: read_v2(name=SENT, shape="x"), True),
        (lambda: read_v2(data=[[NUMBER, SENT]]), True),
        (lambda: read_v2(datatype=SENT), True),
        (lambda: read_document(SENT.encode(), len(SENT)), False),
        (lambda: read_header_length(SENT, b""), True),
        (lambda: check_form("a", "FP32", [-NUMBER]), True),
        (lambda: check(Tensor("a", "FP32", (NUMBER,), b"")), True),
        (lambda: check(Tensor(SENT, "FP32", (1,), b"")), True),
        (lambda: read_items(SENT.encode(), "application/json", **LIMITS), False),
        (lambda: read_items(SENT.encode(), SENT, **LIMITS), True),
        (lambda: read_items(b"{%s" % SENT.encode(), "application/json", **LIMITS), False),
        (lambda: read_instances(orjson.dumps({"instances": [1], SENT: 1}), "", **INSTANCES), True),
        (lambda: read_instances(orjson.dumps({"instances": [{"image": {"b64": f"{SENT}!"}}]}), "", **INSTANCES), False),
        (lambda: read_parts(SENT.encode(), SENT, max_parts=9), False),
        (lambda: decode(SENT.encode(), max_bytes=99, max_pixels=99), True),
        (fail_with(f"index: 1 Got: {SENT} Expected: 4"), True),
        (fail_with(f"Found invalid character {SENT} in header at 3"), True),
    ],
)
def test_log_quotes_nothing_of_what_was_sent(send: Callable[[], Any], is_quoted: bool) -> None:
    with pytest.raises(ServingError) as caught:
        send()
    error = caught.value
    assert error.status < 500
    client, log = (text.replace(".", "") for text in (error.for_client("id"), error.for_log()))  # 5.301425e+46
    assert (SENT in client) == is_quoted
    assert SENT not in log
    assert error.for_log().startswith(type(error).__name__)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InvalidRequest("row 3, column 0: got [5.1], expected an FP32 number"), "InvalidRequest: row 3, column 0: ..."),
        (InvalidRequest("input 'a': expected numbers"), "InvalidRequest: input ..."),
        (
            InvalidRequest("body: more than 8 bytes"),
            "InvalidRequest: body: more than 8 bytes",
        ),
        (PredictorError("model 'a': got nothing"), "PredictorError: model 'a': got nothing"),
    ],
)
def test_log_says_what_was_wrong(error: ServingError, line: str) -> None:
    assert error.for_log() == line


@pytest.mark.parametrize("error", [InvalidRequest("got 1"), NoServableVersion("digits", "2", "")])
def test_an_error_says_which_part_of_the_request_it_is_about(error: ServingError) -> None:
    located = error.at("image 1 of 2")
    assert type(located) is type(error)
    assert str(located) == f"image 1 of 2: {error}"
    assert located.for_client("") == str(located)
