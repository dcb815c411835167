"""A Triton at the wire with two models: `finder` returns the boxes that a test gives it, `reader` a crop's grey."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.writer.config import describe_detector, describe_model
from transformer.dataplane.dataplane import DataPlane
from transformer.settings import TransformerSettings
from transformer.triton.client import TritonClient
from transformer.triton.synchroniser_client import SynchroniserClient

SIDE = 320
GREYS = 16
_METHODS = {
    "ServerMetadata": service_pb2.ServerMetadataRequest,
    "ModelMetadata": service_pb2.ModelMetadataRequest,
    "ModelConfig": service_pb2.ModelConfigRequest,
    "ModelInfer": service_pb2.ModelInferRequest,
}


def finder(**parameters: str) -> Any:
    """A detector of the interface `fused`, with one class."""
    config = describe_detector(
        "finder",
        interface="fused",
        size_hw=None,
        classes=1,
        metadata={"task": "detect", "imgsz": [SIDE, SIDE], "names": {0: "cell"}},
    )
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def reader(*, side: int = 8, batch: int = 8, channels: int = 1, names: str = "grey", task: str = "classify") -> Any:
    """A classifier whose classes are `GREYS` levels of grey."""
    return describe_model(
        "reader",
        ("image", "TYPE_UINT8", (side, side, channels)),
        outputs=[("probabilities", "TYPE_FP32", (GREYS,))],
        max_batch_size=batch,
        metadata={
            "task": task,
            "imgsz": [side, side],
            "channels": channels,
            "names": {index: f"{names} {index}" for index in range(GREYS)},
        },
    )


@dataclass
class TwoModels:
    """Responds to the calls that the transformer makes.

    Attributes:
        boxes_xyxy: that the finder returns for any image, `(N, 4)`.
        configs: what serves, by model.
        versions: the version of each that serves.
        swap_after: number of calls to the reader after which version 2 of it serves, with this config.
        swapped: that config; None: the reader is gone then.
        may_respond: cleared, the reader hangs.
        delay_s: how long the reader takes.
        inputs: of the reader, one array for each call.
        calls: number of calls, by model.
        most_at_once: calls to the reader.
        cancelled: calls to the reader that were cancelled.
    """

    boxes_xyxy: Sequence[Sequence[float]] = ()
    configs: dict[str, ModelConfig] = field(default_factory=lambda: {"finder": finder(), "reader": reader()})
    versions: Counter[str] = field(default_factory=lambda: Counter(finder=1, reader=1))
    swap_after: int | None = None
    swapped: Any = None
    may_respond: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0
    inputs: list[NDArray[np.uint8]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    cancelled: int = 0
    _at_once: int = 0

    async def respond(self, method: str, data: bytes, context: Any) -> bytes:
        """The response to a call."""
        request = _METHODS[method].FromString(data)
        name = getattr(request, "model_name", "") or getattr(request, "name", "")
        if method != "ServerMetadata" and name not in self.configs:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name}")
        response: bytes = (await getattr(self, method)(request, name)).SerializeToString()
        return response

    async def ServerMetadata(self, _: Any, __: str) -> Any:  # noqa: N802 - the RPC's name
        return service_pb2.ServerMetadataResponse(version="2.60.0")

    async def ModelMetadata(self, _: Any, name: str) -> Any:  # noqa: N802
        return service_pb2.ModelMetadataResponse(name=name, versions=[str(self.versions[name])])

    async def ModelConfig(self, _: Any, name: str) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self.configs[name])

    async def ModelInfer(self, request: Any, name: str) -> Any:  # noqa: N802
        self.calls[name] += 1
        (tensor,) = request.inputs
        batch = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        version = str(self.versions[name])
        outputs = self._find(len(batch)) if name == "finder" else await self._read(batch)
        response = service_pb2.ModelInferResponse(model_name=name, model_version=version)
        for output, (datatype, array) in outputs.items():
            response.outputs.add(name=output, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response

    def _find(self, count: int) -> dict[str, tuple[str, NDArray[Any]]]:
        corners = np.array(self.boxes_xyxy, np.float32).reshape(-1, 4)
        boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
        scores = np.linspace(0.9, 0.8, len(boxes), dtype=np.float32)
        return {
            "boxes": ("FP32", np.stack([boxes] * count)),
            "scores": ("FP32", np.stack([scores] * count)),
            "classes": ("INT32", np.zeros((count, len(boxes)), np.int32)),
        }

    async def _read(self, batch: NDArray[np.uint8]) -> dict[str, tuple[str, NDArray[Any]]]:
        self.inputs.append(batch)
        if self.swap_after == self.calls["reader"]:
            self.versions["reader"] = 2
            if self.swapped is None:
                del self.configs["reader"]
            else:
                self.configs["reader"] = self.swapped
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.delay_s)
            await self.may_respond.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._at_once -= 1
        greys = batch.reshape(len(batch), -1).mean(axis=1) * GREYS / 256
        return {"probabilities": ("FP32", np.eye(GREYS, dtype=np.float32)[greys.astype(int)])}


@asynccontextmanager
async def serve(triton: TwoModels, **settings: Any) -> AsyncIterator[DataPlane]:
    """A data plane whose Triton this is."""

    def service(_: Any, details: grpc.HandlerCallDetails) -> Any:
        async def respond(data: bytes, context: Any) -> bytes:
            return await triton.respond(details.method.rpartition("/")[2], data, context)

        return grpc.unary_unary_rpc_method_handler(respond)

    triton.may_respond.set()
    handler = type("Handler", (grpc.GenericRpcHandler,), {"service": service})()
    server = grpc.aio.server(handlers=[handler], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    dataplane = DataPlane(TritonClient(f"127.0.0.1:{port}"), SynchroniserClient(""), TransformerSettings(**settings))
    try:
        yield dataplane
    finally:
        triton.may_respond.set()
        await dataplane.close()
        await server.stop(1)
