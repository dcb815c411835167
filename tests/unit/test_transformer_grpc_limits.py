"""Limits of gRPC messages."""

import pytest
from tritonclient.grpc import service_pb2

from transformer.errors import InvalidRequest, PayloadTooLarge
from transformer.grpc.message_limits import check_message

REQUEST = service_pb2.ModelInferRequest
MODEL = b"\x0a\x04iris"


def request(**contents: list[int] | list[float] | list[bytes]) -> bytes:
    message = REQUEST(model_name="iris", id="me")
    message.parameters["confidence"].double_param = 0.5
    tensor = message.inputs.add(name="x", datatype="INT32", shape=[2, 500_000])
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return bytes(message.SerializeToString())


def test_ordinary_messages_pass() -> None:
    for data in (
        b"",
        request(),
        request(fp32_contents=[0.5] * 1_000_000),
        request(bytes_contents=[b"content" * 1000] * 1024),
        bytes(REQUEST(raw_input_contents=[bytes(50_000_000)]).SerializeToString()),
        b"\x92\x3f\x03abc",  # a field that no message has
    ):
        check_message(data, REQUEST.DESCRIPTOR)
        REQUEST.FromString(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (MODEL + b"\x2a\x00" * 20_000, "more than 20000 fields"),
        (MODEL + b"\x22\x00" * 20_000, "more than 20000 fields"),
        (MODEL + b"\x3a\x00" * 20_000, "more than 20000 fields"),
        (MODEL + b"\x92\x3f\x00" * 20_000, "more than 20000 fields"),
        (request(bytes_contents=[b""] * 20_000), "more than 20000 fields"),
        (request(fp32_contents=[0.5] * 1_048_577), "more than 4194304 bytes of typed numbers"),
        (request(int_contents=[1] * 4_194_304), "more than 4194304 bytes of typed numbers"),
    ],
)
def test_messages_of_many_fields_are_rejected_before_they_are_parsed(data: bytes, says: str) -> None:
    with pytest.raises(PayloadTooLarge, match=says):
        check_message(data, REQUEST.DESCRIPTOR)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05iris",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0b\x0c",
        b"\xff" * 20,
        b"\x0d12",
    ],
)
def test_broken_messages_are_rejected(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="message: "):
        check_message(data, REQUEST.DESCRIPTOR)
