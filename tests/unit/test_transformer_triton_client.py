"""Requests to Triton as bytes, and which calls are cancelled."""

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
from transformer.errors import PredictorTimeout
from transformer.triton.client import TritonClient
from transformer.triton.infer_message import compose, content, encode
from transformer.triton.infer_options import InferOptions
from transformer.triton.status import translate
from transformer.triton.tensors import Tensor


@pytest.mark.parametrize("sizes", [[0], [1], [127], [128], [16_383, 16_384], [2**21 + 1, 0, 5]])
def test_request_is_what_protobuf_itself_would_write(sizes: list[int]) -> None:
    request = compose(
        ("digits", "3"),
        request_id="7",
        outputs=["boxes", "scores"],
        parameters={"priority": 1, "fast": True, "name": "x", "share": 0.5},
    )
    arrays = [np.arange(size, dtype=np.uint8) for size in sizes]
    for index, array in enumerate(arrays):
        request.inputs.add(name=f"input-{index}", datatype="UINT8", shape=array.shape)
    read = service_pb2.ModelInferRequest.FromString(encode(request, [content("x", array) for array in arrays]))
    request.raw_input_contents.extend(array.tobytes() for array in arrays)
    assert read == request


class Triton:
    """A gRPC server of this version that responds when it may, and counts the calls that were cancelled before."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.may_respond = asyncio.Event()
        self.started = self.responded = self.cancelled = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def metadata(_: bytes, __: Any) -> bytes:
            response: bytes = service_pb2.ServerMetadataResponse(version=self._version).SerializeToString()
            return response

        async def infer(_: bytes, __: Any) -> bytes:
            self.started += 1
            try:
                await self.may_respond.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            self.responded += 1
            response: bytes = service_pb2.ModelInferResponse(model_version="1").SerializeToString()
            return response

        return grpc.unary_unary_rpc_method_handler(infer if details.method.endswith("ModelInfer") else metadata)


@asynccontextmanager
async def client_of(triton: Triton) -> AsyncIterator[TritonClient]:
    """Connected: it has received a response."""
    handler = type("Handler", (grpc.GenericRpcHandler,), {"service": lambda _, details: triton.service(details)})
    server = grpc.aio.server(handlers=[handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = TritonClient(f"127.0.0.1:{port}")
    try:
        triton.may_respond.set()
        await client.infer_tensors("m", patient(), [])
        triton.may_respond.clear()
        triton.started = triton.responded = 0
        yield client
    finally:
        triton.may_respond.set()
        await client.close()
        await server.stop(1)


def patient() -> InferOptions:
    return InferOptions(Deadline.after(20))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def leave(client: TritonClient, triton: Triton, how: str, tensors: Sequence[Tensor] = ()) -> None:
    """Abandon a call that Triton has started."""
    options = InferOptions(Deadline.after(1)) if how == "deadline" else patient()
    call = asyncio.create_task(client.infer_tensors("m", options, tensors))
    await until(lambda: triton.started > 0)
    if how == "cancel":
        call.cancel()
    with pytest.raises(PredictorTimeout if how == "deadline" else asyncio.CancelledError):
        await call


@pytest.mark.parametrize("how", ["deadline", "cancel"])
@pytest.mark.parametrize(
    ("version", "survives"), [("2.51.0", False), ("2.56.1", False), ("2.57.0", True), ("3.0", True)]
)
def test_call_is_cancelled_only_where_triton_survives_it(version: str, how: str, *, survives: bool) -> None:
    async def run() -> tuple[int, int]:
        triton = Triton(version)
        async with client_of(triton) as client:
            await leave(client, triton, how)
            await asyncio.sleep(0.2)  # in which a cancellation would arrive
            if not survives:
                triton.may_respond.set()
            await until(lambda: triton.cancelled + triton.responded > 0)
            return triton.cancelled, triton.responded

    assert asyncio.run(run()) == ((1, 0) if survives else (0, 1))


def test_request_that_triton_drops_from_its_queue_is_a_timeout() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="Request timeout expired"
    )
    assert isinstance(translate(error, "m"), PredictorTimeout)
