"""Tensors of the v2 protocol: bytes, JSON and typed contents."""

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from transformer.admission import Deadline
from transformer.errors import InvalidRequest, PayloadTooLarge
from transformer.grpc.v2_codec import read_request
from transformer.grpc.v2_codec import write_response as write_message
from transformer.protocol.v2_messages import InferResponse
from transformer.rest.v2_codec import Document, read_document, read_header_length, write_response
from transformer.triton.tensors import DTYPES, Tensor, check, from_array, from_elements, to_array, to_elements

ELEMENTS = [b"", b"\x00\xff", b"element" * 100]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0, 4), (2, 3), ()])
def test_numbers_survive_the_wire(datatype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, DTYPES[datatype])
    tensor = from_array("x", array)
    check(tensor)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)
    np.testing.assert_array_equal(to_array(tensor), array)


def test_array_that_is_not_contiguous_is_written_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(to_array(from_array("x", array)), array)


def test_elements_lie_as_tritonclient_lays_them() -> None:
    tensor = from_elements("x", ELEMENTS)
    assert tensor.data == serialize_byte_tensor(np.array(ELEMENTS, object)).item()
    assert to_elements(tensor) == deserialize_bytes_tensor(tensor.data).tolist() == ELEMENTS
    check(tensor)
    check(Tensor("x", "BYTES", (3, 1), tensor.data))
    check(from_elements("x", []))


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Tensor("x", "FP32", (2,), bytes(4)), r"got 1 elements \(4 bytes\), expected 2 for FP32 \[2\]"),
        (Tensor("x", "FP32", (2,), bytes(9)), r"got 2.25 elements"),
        (Tensor("x", "BF16", (2,), bytes(2)), "expected 2 for BF16"),
        (Tensor("x", "FP32", (2**20, 2**20), b""), r"got 0 elements \(0 bytes\), expected 1099511627776"),
        (Tensor("x", "FP32", (2**62, 2**62), b""), "expected at most 1099511627776 elements"),
        (Tensor("x", "FP32", (0, 2**62), b""), "expected at most 1099511627776 elements"),
        (Tensor("x" * 256, "FP32", (1,), bytes(4)), "got a name of 256 characters, expected at most 255"),
        (Tensor("x", "FP32", (-1,), b""), "dimensions of 0 and more"),
        (Tensor("x", "FP32", (2**63,), b""), "dimensions of 0 and more"),
        (Tensor("x", "FP32", (2**62,) * 65, b""), "got 65 dimensions, expected at most 64"),
        (Tensor("x", "float", (1,), bytes(4)), "datatype: got 'float', expected one of BOOL, UINT8"),
        (Tensor("x", "BYTES", (2,), from_elements("x", [b"one"]).data), "got 1 elements, expected 2"),
        (Tensor("x", "BYTES", (2**40,), from_elements("x", [b"one"]).data), "got 1 elements"),
        (Tensor("x", "BYTES", (1,), from_elements("x", [b"1", b"2", b"3"]).data), "got more elements, expected 1"),
        (Tensor("x", "BYTES", (0,), from_elements("x", [b"1"]).data), "got more elements, expected 0"),
        (Tensor("x", "BYTES", (1,), b"\x05\x00\x00\x00four"), "ends at byte 9, but there are 8"),
        (Tensor("x", "BYTES", (1,), b"\x05\x00"), "ends at byte 4, but there are 2"),
        (Tensor("x", "BYTES", (1,), b"\xff\xff\xff\xff"), "ends at byte 4294967299, but there are 4"),
    ],
)
def test_check_rejects_a_tensor_whose_data_do_not_fit(tensor: Tensor, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check(tensor)


def read(*inputs: Any, **more: Any) -> Document:
    body = json.dumps({"inputs": inputs, **more}).encode()
    return read_document(body, len(body))


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("FP32", [1, 2.5], [1, 2.5]),
        ("FP32", [[1], [2.5]], [1, 2.5]),
        ("FP32", [16777217], [16777216]),  # rounded, as every FP32 is
        ("FP64", [1e300], [1e300]),
        ("FP16", [65504], [65504]),
        ("INT8", [-128, 127], [-128, 127]),
        ("UINT64", [2**64 - 1], [2**64 - 1]),
        ("INT64", [-(2**63)], [-(2**63)]),
        ("BOOL", [True, False], [True, False]),
        ("FP32", [], []),
    ],
)
def test_numbers_are_read_from_json(datatype: str, data: list[Any], expected: list[Any]) -> None:
    (tensor,) = read({"name": "x", "datatype": datatype, "shape": [len(expected)], "data": data}).inputs
    check(tensor)
    assert to_array(tensor).tolist() == expected


@pytest.mark.parametrize(
    ("datatype", "data", "says"),
    [
        ("FP32", [1e39], "expected numbers that fit FP32"),
        ("FP32", [10**400], "expected numbers that fit FP32|broken JSON"),
        ("FP16", [65536], "expected numbers that fit FP16"),
        ("UINT8", [256], "expected numbers that fit UINT8"),
        ("UINT8", [-1], "expected numbers that fit UINT8"),
        ("INT64", [2**63], "expected numbers that fit INT64"),
        ("INT32", [1.0], "expected only whole numbers for INT32"),
        ("FP32", [1, "1"], "got '1', expected only numbers for FP32"),
        ("FP32", [True], "expected only numbers for FP32"),
        ("FP32", [{}], "expected only numbers"),
        ("BOOL", [1], "expected only true and false for BOOL"),
        ("BYTES", [1], "got 1, expected strings for BYTES; base64 for an image"),
        ("BYTES", [{"b64": "AA"}], "got {'b64': 'AA'}, expected strings for BYTES"),
        ("BF16", [1], "BF16 cannot be JSON; expected binary data"),
    ],
)
def test_json_data_that_do_not_fit_the_datatype_are_rejected(datatype: str, data: list[Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read({"name": "x", "datatype": datatype, "shape": [1], "data": data})


def test_numbers_that_are_not_finite_are_read_from_json() -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [NaN, Infinity, -Infinity, 1]}]}'
    (tensor,) = read_document(body, len(body)).inputs
    np.testing.assert_array_equal(to_array(tensor), np.array([np.nan, np.inf, -np.inf, 1], np.float32))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"id": "a"}'.encode("utf-16"), "got UTF-16 or UTF-32, expected UTF-8"),
        ('{"id": "a"}'.encode("utf-16-le"), "got UTF-16 or UTF-32, expected UTF-8"),
        ('{"id": "a"}'.encode("utf-16-be"), "got UTF-16 or UTF-32, expected UTF-8"),
        ('{"id": "a"}'.encode("utf-32"), "got UTF-16 or UTF-32, expected UTF-8"),
        ('{"id": "é"}'.encode("latin-1"), "byte 8 is not UTF-8, expected UTF-8"),
        ('{"id": "é", "a": NaN}'.encode("latin-1"), "byte 8 is not UTF-8, expected UTF-8"),
        (b'{"inputs": [NaN', "broken JSON: Expecting"),
        (b'{"inputs": [NaN, "\\ud800"]}', "broken JSON: .*surrogates not allowed"),
        (b'{"inputs": [NaN, ' + b"[" * 5000 + b"]" * 5000 + b"]}", "broken JSON: "),
        (b'{"inputs": [Nan]}', "broken JSON"),
    ],
)
def test_text_that_is_no_json_is_named(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^body: .*{says}"):
        read_document(body, len(body))


def test_byte_order_mark_is_left_out() -> None:
    for text in (b'{"inputs": []}', b'{"inputs": [], "parameters": {"a": NaN}}'):
        read_document(b"\xef\xbb\xbf" + text, len(text) + 3)


def test_long_integers_beside_nan_are_as_without_it() -> None:
    numbers = b"18446744073709551615, -9223372036854775808, 1" + b"0" * 5000
    body = b'{"inputs": [], "parameters": {"a": [%s], "b": NaN}}' % numbers
    parameters = read_document(body, len(body)).parameters
    assert parameters["a"] == [2**64 - 1, -(2**63), float("inf")]


def test_deeply_nested_json_is_read_or_rejected() -> None:
    for depth in (900, 1100, 100_000):
        data = b"[" * depth + b'"x"' + b"]" * depth
        body = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": %s}]}' % data
        if depth == 900:
            (tensor,) = read_document(body, len(body)).inputs
            assert to_elements(tensor) == [b"x"]
        else:
            with pytest.raises((InvalidRequest, PayloadTooLarge)):
                read_document(body, len(body))


def test_document_keeps_outputs_and_parameters_of_the_request() -> None:
    document = read(
        id="me",
        outputs=[{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
        parameters={"binary_data_output": True, "iou": 0.5},
    )
    assert document == Document(
        id="me", inputs=[], outputs={"a": None, "b": False}, parameters={"iou": 0.5}, binary=True
    )


FULL: dict[str, Any] = {
    "id": None,
    "parameters": None,
    "outputs": None,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1], "parameters": None}],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameters": {"binary_data_output": None, "priority": None}},
        {"inputs": [FULL["inputs"][0] | {"parameters": {"binary_data_size": None, "content_type": None}}]},
    ],
)
def test_null_is_absent(changes: dict[str, Any]) -> None:
    given = read({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]})
    body = json.dumps(FULL | changes).encode()
    assert read_document(body, len(body)) == given


def test_null_is_absent_of_an_output_and_beside_binary_data() -> None:
    outputs = [{"name": "a", "parameters": None}, {"name": "b", "parameters": {"binary_data": None}}]
    body = json.dumps(FULL | {"outputs": outputs}).encode()
    assert read_document(body, len(body)).outputs == {"a": None, "b": None}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": None, "parameters": {"binary_data_size": 4}}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert read_document(body + b"1234", len(body)).inputs == [Tensor("x", "FP32", (1,), b"1234")]


@pytest.mark.parametrize("key", ["name", "datatype", "shape"])
def test_null_is_rejected_for_a_required_member(key: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]} | {key: None}
    with pytest.raises(InvalidRequest, match=f"{key}: got null, expected a"):
        read(tensor)


def test_unknown_members_of_an_output_are_ignored() -> None:
    parameters = {"content_type": "np", "what": {"ever": [1]}, "binary_data": True, "classification": 0}
    document = read(
        outputs=[{"name": "a", "parameters": parameters}, {"name": "b", "parameters": {"classification": 3}}]
    )
    assert (document.outputs, document.classes) == ({"a": True, "b": None}, {"b": 3})


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"classification": -1}, "classification: got -1, expected how many"),
        ({"classification": True}, "classification: got True, expected how many"),
        ({"classification": 2**31}, "classification: got 2147483648, expected how many"),
        ({"classification": "3"}, "classification: got '3', expected how many"),
        ({"shared_memory_region": "r"}, "shared memory is not supported"),
        ({"binary_data": "x"}, "binary_data: got a string, expected a boolean"),
    ],
)
def test_output_that_cannot_be_returned_is_rejected(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(outputs=[{"name": "a", "parameters": parameters}])


def test_string_alone_is_a_list_of_one() -> None:
    (tensor,) = read({"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": "text"}).inputs
    assert to_elements(tensor) == [b"text"]


@pytest.mark.parametrize("value", ["-1", "5.0", "", "abc", "7", "٣", "9" * 5000])
def test_header_length_is_a_number_within_the_body(value: str) -> None:
    assert read_header_length(None, b"123456") == 6
    assert read_header_length("6", b"123456") == 6
    with pytest.raises(InvalidRequest, match="expected a number from 0 to 6"):
        read_header_length(value, b"123456")


RESPONSE = InferResponse(
    "m", "3", [from_array("a", np.array([[1.5, np.nan]], np.float32)), from_elements("b", ["é".encode()])]
)


def test_response_is_json_by_default() -> None:
    body, length = write_response(RESPONSE, Document(id="me"))
    assert length is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
            {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["é"]},
        ],
        "id": "me",
    }


def test_response_has_binary_data_where_the_request_has_binary_data_output() -> None:
    body, length = write_response(RESPONSE, Document(outputs={"a": None, "b": False}, binary=True))
    assert length is not None
    head = json.loads(body[:length])
    assert head["outputs"][0] == {
        "name": "a",
        "datatype": "FP32",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 8},
    }
    assert head["outputs"][1]["data"] == ["é"]
    assert body[length:] == RESPONSE.outputs[0].data
    assert "id" not in head


@pytest.mark.parametrize("tensor", [from_elements("a", [b"\xff"]), Tensor("a", "BF16", (1,), b"12")])
def test_response_without_a_form_in_json_needs_binary_data(tensor: Tensor) -> None:
    response = InferResponse("m", "1", [tensor])
    with pytest.raises(InvalidRequest, match="expected binary_data"):
        write_response(response, Document())
    body, length = write_response(response, Document(binary=True))
    assert body[length:] == tensor.data


def test_response_has_typed_or_raw_contents_as_the_request_has() -> None:
    request = service_pb2.ModelInferRequest(model_name="m", id="me")
    request.inputs.add(name="x", datatype="INT8", shape=[2]).contents.int_contents.extend([-128, 127])
    document = read_request(request, Deadline.after(1))
    assert to_array(document.inputs[0]).tolist() == [-128, 127]
    response = write_message(RESPONSE, request)
    assert response.id == "me"
    assert response.outputs[0].contents.fp32_contents[0] == 1.5
    assert list(response.outputs[1].contents.bytes_contents) == ["é".encode()]
    request.raw_input_contents.append(b"12")
    assert list(write_message(RESPONSE, request).raw_output_contents) == [tensor.data for tensor in RESPONSE.outputs]


@pytest.mark.parametrize(
    ("datatype", "contents", "says"),
    [
        ("INT8", {"int_contents": [128]}, "expected numbers that fit INT8"),
        ("INT8", {"fp32_contents": [1]}, "got fp32_contents, expected int_contents for INT8"),
        ("FP16", {"fp32_contents": [1]}, "FP16 has no typed contents; expected raw_input_contents"),
        ("WORDS", {"bytes_contents": [b"1"]}, "datatype: got 'WORDS'"),
    ],
)
def test_typed_contents_that_do_not_fit_are_rejected(datatype: str, contents: Any, says: str) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    entry = request.inputs.add(name="x", datatype=datatype, shape=[1])
    for field, values in contents.items():
        getattr(entry.contents, field).extend(values)
    with pytest.raises(InvalidRequest, match=says):
        read_request(request, Deadline.after(1))


@pytest.mark.parametrize("count", [0, -1, 2**31])
def test_classes_of_an_output_over_grpc(count: int) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    output = request.outputs.add(name="y")
    output.parameters["classification"].int64_param = count
    with pytest.raises(InvalidRequest, match=f"classification: got {count}, expected how many"):
        read_request(request, Deadline.after(1))
    output.parameters["classification"].int64_param = 2
    output.parameters["what"].string_param = "ever"
    document = read_request(request, Deadline.after(1))
    assert (document.outputs, document.classes) == (["y"], {"y": 2})
