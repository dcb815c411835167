"""The wire to Triton: v2 over gRPC, the only module that calls it and knows its errors."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from transformer.errors import (
    ModelNotFound,
    NothingServes,
    Overloaded,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
    ServingError,
)
from transformer.model import Model, describe
from transformer.tensors import DTYPES, Tensor, datatype_of, to_array

Content = bytes | memoryview


class TensorRefused(PredictorError):
    """Triton takes no such tensor. Where we made it the client is not to blame: the model has changed, or is wrong.

    Attributes:
        reason: Triton's words, for the client whose own tensor it was.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Without the request id that Triton puts in front, and the place in a Python backend behind.
        self.reason = re.sub(r"^\[request id: .*?\] |\n*At:.*", "", message.partition(": ")[2], flags=re.DOTALL)


# What Triton and the channel mean by each gRPC status.
_ERRORS: Mapping[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.CANCELLED: PredictorUnavailable,
    grpc.StatusCode.UNKNOWN: PredictorError,
    grpc.StatusCode.INVALID_ARGUMENT: TensorRefused,
    grpc.StatusCode.DEADLINE_EXCEEDED: PredictorTimeout,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.ALREADY_EXISTS: PredictorError,
    grpc.StatusCode.PERMISSION_DENIED: PredictorError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: PredictorError,
    grpc.StatusCode.ABORTED: PredictorError,
    grpc.StatusCode.OUT_OF_RANGE: PredictorError,
    grpc.StatusCode.UNIMPLEMENTED: PredictorError,
    grpc.StatusCode.INTERNAL: PredictorError,
    grpc.StatusCode.UNAVAILABLE: PredictorUnavailable,
    grpc.StatusCode.DATA_LOSS: PredictorError,
    grpc.StatusCode.UNAUTHENTICATED: PredictorError,
}

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A status comes as metadata, and Triton's lists every input of a request that it refuses.
    ("grpc.max_metadata_size", 2**20),
    ("grpc.absolute_max_metadata_size", 2**20),
    # The default grows to two minutes: far too long after Triton is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A name with several addresses is a headless Service: every replica gets its share.
    ("grpc.lb_policy_name", "round_robin"),
    # Hosts are loopback or cluster-internal; a proxy from the environment must not stand in between.
    ("grpc.enable_http_proxy", 0),
)
# Field number, and wire type 2: length-delimited.
_RAW_INPUT_TAG = bytes([service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2])
_QUICK_TIMEOUT_S = 5.0  # of calls that run no model
_PROOF_HEADER = "triton-grpc-protocol-nereid"
_CANDIDATE = "candidate."  # a version that the synchroniser tries; no model's name
_LONGEST_NAME = 255  # of a folder, which a model's name is


class Predictor:
    """Triton, seen from the transformer."""

    def __init__(self, url: str, *, timeout_s: float, secret: str = "") -> None:
        """Prepare a channel to `host:port`; it connects, and reconnects, by itself. A loop must run.

        Args:
            url: of Triton's gRPC.
            timeout_s: for one inference.
            secret: for the list of models, where Triton asks for one.
        """
        self.url = url
        self._timeout_s = timeout_s
        self._secret = ((_PROOF_HEADER, secret),) if secret else ()
        self._channel = grpc.aio.insecure_channel(url, _CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # The stub's own would copy the tensors twice more, see _encode().
        self._model_infer: Any = self._channel.unary_unary(
            f"/{service_pb2.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}/ModelInfer",
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def ready(self) -> bool:
        """Whether Triton answers and says that it is ready."""
        try:
            reply = await self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=_QUICK_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.ready)

    async def models(self) -> list[str]:
        """Names of the models that serve, in alphabetical order."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        index = partial(self._stub.RepositoryIndex, metadata=self._secret)
        reply = await self._call(index, request, "", timeout_s=_QUICK_TIMEOUT_S)
        return sorted({model.name for model in reply.models if not model.name.startswith(_CANDIDATE)})

    async def describe(self, name: str, version: str = "") -> Model:
        """Description of a model's version; of the newest that serves where none is named.

        Raises:
            ServingError: as Triton answers, see `_ERRORS`.
        """
        while True:
            *_, served = await self.versions(name, version)
            try:
                return describe(await self.config(name, served), version=served)
            except ModelNotFound:
                if version:  # else a swap has come in between: there is another one
                    raise

    async def config(self, name: str, version: str = "") -> Any:
        """Triton's `inference.ModelConfig` of a model."""
        request = service_pb2.ModelConfigRequest(name=name, version=version)
        reply = await self._call(self._stub.ModelConfig, request, name, timeout_s=_QUICK_TIMEOUT_S)
        return reply.config

    async def versions(self, name: str, version: str = "") -> list[str]:
        """Versions of a model that serve, oldest first; the one where one is named.

        Raises:
            ModelNotFound: no such model or version.
            NothingServes: no version of it serves.
        """
        request = service_pb2.ModelMetadataRequest(name=name)
        reply = await self._call(self._stub.ModelMetadata, request, name, timeout_s=_QUICK_TIMEOUT_S)
        served = sorted(reply.versions, key=int)
        if version and version not in served:
            raise ModelNotFound(f"model {name!r} has no version {version!r}; expected one of {', '.join(served)}")
        if not served:
            raise NothingServes(name)
        return [version] if version else served

    async def infer(
        self, model: Model, array: NDArray[Any], *, version: str = "", scheduling: Mapping[str, int]
    ) -> tuple[dict[str, NDArray[Any]], str]:
        """Run a model with one numeric input.

        Args:
            model: whose input and outputs are meant.
            array: `(batch, ...)`, at most `model.max_batch_size` items.
            version: a certain one, or "" for what Triton's policy serves.
            scheduling: parameters of Triton's scheduler.

        Returns:
            Outputs by name, `(batch, ...)`, and the version that answered.

        Raises:
            TensorRefused: the model takes no such array.
            ServingError: as Triton answers, see `_ERRORS`.
        """
        request = _compose(model.name, version, [output.name for output in model.outputs], scheduling)
        request.inputs.add(name=model.input.name, datatype=datatype_of(array), shape=array.shape)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        outputs, answered = await self._infer(request, [content])
        strange = [output for output in outputs if output.datatype not in DTYPES]
        if strange:
            raise PredictorError(f"{model.name}: output {strange[0].name!r} is {strange[0].datatype}, expected numbers")
        return {output.name: to_array(output) for output in outputs}, answered

    async def infer_tensors(
        self,
        name: str,
        inputs: Sequence[Tensor],
        *,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        version: str = "",
    ) -> tuple[list[Tensor], str]:
        """Run a model on its own tensors.

        Args:
            name: of the model.
            inputs: whatever they are; Triton judges them.
            outputs: names of those that are wanted; all where there are none.
            parameters: of Triton: booleans, whole numbers, numbers or strings.
            version: a certain one, or "" for what Triton's policy serves.

        Returns:
            The outputs, and the version that answered.

        Raises:
            TensorRefused: the model takes no such tensors, or has no such output.
            ServingError: as Triton answers, see `_ERRORS`.
        """
        request = _compose(name, version, outputs, parameters or {})
        for tensor in inputs:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return await self._infer(request, [tensor.data for tensor in inputs])

    async def _infer(self, request: Any, contents: Sequence[Content]) -> tuple[list[Tensor], str]:
        message = _encode(request, contents)
        reply = await self._call(self._model_infer, message, request.model_name, timeout_s=self._timeout_s)
        return [
            Tensor(output.name, output.datatype, tuple(output.shape), data)
            for output, data in zip(reply.outputs, reply.raw_output_contents, strict=True)
        ], reply.model_version

    async def _call(self, method: Callable[..., Any], request: Any, name: str, *, timeout_s: float) -> Any:
        if len(name) > _LONGEST_NAME:
            # Triton would quote it, in a status longer than a channel takes.
            raise ModelNotFound(f"model {name[:_LONGEST_NAME]!r}... of {len(name)} characters is unknown")
        if name.startswith(_CANDIDATE):
            raise ModelNotFound(f"model {name!r} is unknown")
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise translate(exc, name) from exc


def _compose(name: str, version: str, outputs: Sequence[str], parameters: Mapping[str, Any]) -> Any:
    """A `ModelInferRequest` without inputs."""
    request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
    for output in outputs:
        request.outputs.add(name=output)
    for key, value in parameters.items():
        setattr(request.parameters[key], _PARAMETER_FIELDS[type(value)], value)
    return request


def _encode(request: Any, contents: Sequence[Content]) -> bytes:
    """A `ModelInferRequest` with its `raw_input_contents`, which are copied once.

    A protobuf message followed by more of its fields is the message with those fields
    (https://protobuf.dev/programming-guides/encoding, "Last One Wins"): each is its tag, its length as a varint, and
    its bytes.
    """
    parts: list[Content] = [request.SerializeToString()]
    for content in contents:
        head = bytearray(_RAW_INPUT_TAG)
        length = len(content)
        while length >= 0x80:
            head.append(length & 0x7F | 0x80)
            length >>= 7
        head.append(length)
        parts += [bytes(head), content]
    return b"".join(parts)


_PARAMETER_FIELDS: Mapping[type, str] = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def translate(exc: grpc.RpcError, name: str) -> ServingError:
    """Triton's error, or the channel's, as one of ours."""
    code, details = exc.code(), exc.details() or ""
    subject = f"model {name!r}" if name else "repository"
    if code is grpc.StatusCode.NOT_FOUND:
        # Triton says NOT_FOUND of a model that it knows as well, while no version of it serves.
        if "no available versions" in details:
            return NothingServes(name)
        return ModelNotFound(f"model {name!r} is unknown")
    return _ERRORS[code](f"{subject}: {details}")
