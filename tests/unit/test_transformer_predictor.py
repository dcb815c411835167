"""Requests to Triton as bytes, and when they are given up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from transformer.admission import Deadline
from transformer.errors import Overloaded, PredictorTimeout
from transformer.triton.client import Predictor, _compose, _encode, translate
from transformer.triton.infer_options import Asked
from transformer.triton.tensors import Tensor


@pytest.mark.parametrize("sizes", [[0], [1], [127], [128], [16_383, 16_384], [2**21 + 1, 0, 5]])
def test_request_is_what_protobuf_itself_would_write(sizes: list[int]) -> None:
    request = _compose("digits", "3", ["boxes", "scores"], {"priority": 1, "fast": True, "name": "x", "share": 0.5})
    contents = [np.arange(size, dtype=np.uint8) for size in sizes]
    for index, content in enumerate(contents):
        request.inputs.add(name=f"input-{index}", datatype="UINT8", shape=content.shape)
    read = service_pb2.ModelInferRequest.FromString(_encode(request, [content.data for content in contents]))
    request.raw_input_contents.extend(content.tobytes() for content in contents)
    assert read == request


class Triton:
    """A gRPC server of this version that answers when it may, and knows which calls were given up before."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.may_answer = asyncio.Event()
        self.begun = self.answered = self.given_up = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def metadata(_: bytes, __: Any) -> bytes:
            reply: bytes = service_pb2.ServerMetadataResponse(version=self._version).SerializeToString()
            return reply

        async def infer(_: bytes, __: Any) -> bytes:
            self.begun += 1
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            self.answered += 1
            reply: bytes = service_pb2.ModelInferResponse(model_version="1").SerializeToString()
            return reply

        return grpc.unary_unary_rpc_method_handler(infer if details.method.endswith("ModelInfer") else metadata)


@asynccontextmanager
async def predictor_of(triton: Triton) -> AsyncIterator[Predictor]:
    """Connected: it has been answered once."""
    handler = type("Handler", (grpc.GenericRpcHandler,), {"service": lambda _, details: triton.service(details)})
    server = grpc.aio.server(handlers=[handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    predictor = Predictor(f"127.0.0.1:{port}")
    try:
        triton.may_answer.set()
        await predictor.infer_tensors(patient(), [])
        triton.may_answer.clear()
        triton.begun = triton.answered = 0
        yield predictor
    finally:
        triton.may_answer.set()
        await predictor.close()
        await server.stop(1)


def patient() -> Asked:
    return Asked("m", Deadline.after(20))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def leave(predictor: Predictor, triton: Triton, how: str, tensors: Sequence[Tensor] = ()) -> None:
    """A call that Triton has begun, and that nobody waits for any more."""
    asked = Asked("m", Deadline.after(1)) if how == "deadline" else patient()
    call = asyncio.create_task(predictor.infer_tensors(asked, tensors))
    await until(lambda: triton.begun > 0)
    if how == "cancel":
        call.cancel()
    with pytest.raises(PredictorTimeout if how == "deadline" else asyncio.CancelledError):
        await call


@pytest.mark.parametrize("how", ["deadline", "cancel"])
@pytest.mark.parametrize(
    ("version", "survives"), [("2.51.0", False), ("2.56.1", False), ("2.57.0", True), ("3.0", True)]
)
def test_call_is_given_up_only_where_triton_survives_it(version: str, how: str, *, survives: bool) -> None:
    async def run() -> tuple[int, int]:
        triton = Triton(version)
        async with predictor_of(triton) as predictor:
            await leave(predictor, triton, how)
            await asyncio.sleep(0.2)  # in which it would hear of it
            if not survives:
                triton.may_answer.set()
            await until(lambda: triton.given_up + triton.answered > 0)
            return triton.given_up, triton.answered

    assert asyncio.run(run()) == ((1, 0) if survives else (0, 1))


def test_calls_that_nobody_waits_for_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.triton.client._MOST_CALLS", 1)

    async def run() -> None:
        triton = Triton("2.51.0")
        async with predictor_of(triton) as predictor:
            await leave(predictor, triton, "cancel")
            with pytest.raises(PredictorTimeout):
                await predictor.infer_tensors(Asked("m", Deadline.after(0.2)), [])
            assert triton.begun == 1
            triton.may_answer.set()
            assert await predictor.infer_tensors(patient(), []) == ([], "1")

    asyncio.run(run())


def test_calls_that_nobody_waits_for_have_few_bytes_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.triton.client._MOST_LEFT_BYTES", 10)

    async def run() -> None:
        triton = Triton("2.51.0")
        tensor = Tensor("x", "UINT8", (11,), bytes(11))
        async with predictor_of(triton) as predictor:
            await leave(predictor, triton, "cancel", [tensor])
            with pytest.raises(Overloaded, match="11 bytes of requests that nobody waits for"):
                await predictor.infer_tensors(patient(), [])
            triton.may_answer.set()
            await until(lambda: not predictor._left_bytes)
            assert await predictor.infer_tensors(patient(), [tensor]) == ([], "1")

    asyncio.run(run())


def test_call_that_cannot_begin_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.triton.client._MOST_CALLS", 1)

    class Exhausted(bytes):
        def __len__(self) -> int:
            raise MemoryError

    async def run() -> None:
        triton = Triton("2.51.0")
        async with predictor_of(triton) as predictor:
            triton.may_answer.set()
            with pytest.raises(MemoryError):
                await predictor.infer_tensors(patient(), [Tensor("x", "UINT8", (1,), Exhausted())])
            assert await predictor.infer_tensors(patient(), []) == ([], "1")

    asyncio.run(run())


def test_what_triton_drops_from_its_queue_was_late() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="Request timeout expired"
    )
    assert isinstance(translate(error, "m"), PredictorTimeout)
