"""A Triton at the wire: it loads folders of a mirror, and returns their golden outputs, or zeros without any."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import service_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import np_to_triton_dtype

from registry.golden import read_golden

_METHODS = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest,
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest,
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest,
    "ModelConfig": service_pb2.ModelConfigRequest,
    "ModelInfer": service_pb2.ModelInferRequest,
    "ModelStatistics": service_pb2.ModelStatisticsRequest,
}


class TritonStub:
    """Responds to the RPCs that the synchroniser uses.

    Attributes:
        loaded: configs of the loaded models, with the folder of each, by name.
        calls: names of RPCs and models, in their order, such as `RepositoryModelLoad rows`.
        failures: status and details by such a name, or by an RPC's alone: fails it.
        wrong: versions that return other outputs than their golden ones, or NaN without golden ones.
        failed_requests: by model, for the statistics.
    """

    def __init__(self, mirror: Path) -> None:
        """Begin without models."""
        self.loaded: dict[str, tuple[ModelConfig, Path]] = {}
        self.calls: list[str] = []
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.wrong: set[int] = set()
        self.failed_requests: dict[str, int] = {}
        self._mirror = mirror

    def versions(self, model: str) -> list[int]:
        """Return the versions that a loaded model serves."""
        if model not in self.loaded:
            return []
        config, folder = self.loaded[model]
        chosen = list(config.version_policy.specific.versions)
        return chosen or sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of an RPC."""
        method = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._respond(method, request, context),
            request_deserializer=_METHODS[method].FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    def _respond(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        model = getattr(request, "model_name", "") or getattr(request, "name", "")
        call = f"{method} {model}".strip()
        self.calls.append(call)
        for name in (call, method):
            if name in self.failures:
                context.abort(*self.failures[name])
        if method in {"ModelConfig", "ModelInfer"} and model not in self.loaded:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {model}")
        return getattr(self, f"_{method}")(request)

    def _RepositoryIndex(self, _: Any) -> Any:  # noqa: N802 - the RPC's name
        response = service_pb2.RepositoryIndexResponse()
        for name in self.loaded:
            for version in self.versions(name):
                response.models.add(name=name, version=str(version), state="READY")
        return response

    def _RepositoryModelLoad(self, request: Any) -> Any:  # noqa: N802
        places = (self._mirror / part / request.model_name for part in ("models", "trial"))
        folder = next(place for place in places if place.exists()).resolve()
        path = folder / "config.pbtxt"
        self.loaded[request.model_name] = text_format.Parse(path.read_bytes(), ModelConfig()), folder
        return service_pb2.RepositoryModelLoadResponse()

    def _RepositoryModelUnload(self, request: Any) -> Any:  # noqa: N802
        self.loaded.pop(request.model_name, None)
        return service_pb2.RepositoryModelUnloadResponse()

    def _ModelConfig(self, request: Any) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self.loaded[request.name][0])

    def _ModelInfer(self, request: Any) -> Any:  # noqa: N802
        config, folder = self.loaded[request.model_name]
        version = int(request.model_version or max(self.versions(request.model_name)))
        path = folder / str(version) / "golden.npz"
        golden = read_golden(path) if path.exists() else {}
        rows = request.inputs[0].shape[0]
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=str(version))
        for tensor in config.output:
            default = np.zeros((rows, *tensor.dims), np.float32)
            array = golden.get(tensor.name, default)[:rows]
            if version in self.wrong:
                array = (array + (7 if golden else np.nan)).astype(array.dtype)
            response.outputs.add(name=tensor.name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response

    def _ModelStatistics(self, _: Any) -> Any:  # noqa: N802
        response = service_pb2.ModelStatisticsResponse()
        for name, count in self.failed_requests.items():
            response.model_stats.add(name=name, version="1").inference_stats.fail.count = count
        return response


@contextmanager
def start_triton_stub(stub: TritonStub) -> Iterator[str]:
    """Serve a stub; its `host:port`."""
    handler = type("Handler", (grpc.GenericRpcHandler,), {"service": lambda _, details: stub.service(details)})
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
