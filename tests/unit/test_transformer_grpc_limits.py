"""Limits of gRPC messages."""

import asyncio
from typing import Any

import pytest
import uvloop
from tritonclient.grpc import service_pb2

from transformer.admission import Deadline
from transformer.errors import BodyTimeout, DeadlineExceeded, InvalidRequest, PayloadTooLarge, ServingError
from transformer.grpc.message_limits import check_message
from transformer.grpc.receive import MessageReceiver

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


class SilentCall:
    """A call of gRPC whose client sends no message."""

    async def read(self) -> Any:
        """grpc.aio.ServicerContext."""
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "error", "says"),
    [
        (0.01, None, BodyTimeout, "within the limit of 0.01 s"),
        (0.01, 60.0, BodyTimeout, "within the limit of 0.01 s"),
        (60.0, 0.001, DeadlineExceeded, "deadline of 0.001 s exceeded"),
        (60.0, 0.0, DeadlineExceeded, "deadline of 0 s exceeded"),
    ],
)
def test_message_that_does_not_arrive_is_rejected_by_the_limit_that_held(
    timeout_s: float, deadline_s: float | None, error: type[ServingError], says: str
) -> None:
    receiver = MessageReceiver(timeout_s=timeout_s, max_message_bytes=1, max_bodies_bytes=1000)

    async def receive() -> None:
        deadline = None if deadline_s is None else Deadline.after(deadline_s)
        with pytest.raises(error, match=says):
            await receiver.receive(SilentCall(), deadline)

    async def receive_many() -> None:
        # A timer of uvloop may end up to a millisecond before the deadline that it was set for.
        for _ in range(300):
            await receive()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(receive_many() if timeout_s > 1 else receive())
