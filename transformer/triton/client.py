"""The wire to Triton: v2 over gRPC, the only module that calls it and knows its errors."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from transformer.admission import Deadline
from transformer.errors import (
    ModelNotFound,
    ModelsNotListed,
    NoReadyVersion,
    Overloaded,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
    ServingError,
    VersionNotFound,
)
from transformer.observability import metrics
from transformer.observability.request_record import current
from transformer.triton.infer_options import Asked
from transformer.triton.model import Model, describe
from transformer.triton.tensors import DTYPES, Content, Tensor, datatype_of, from_elements, to_array


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

# Of a response: one of unlimited size would take the memory of all requests. 90 of a raw YOLOv8 head fit.
MAX_RESPONSE_BYTES = 2**28

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # A status comes as metadata, and Triton's lists every input of a request that it refuses.
    ("grpc.max_metadata_size", 2**20),
    ("grpc.absolute_max_metadata_size", 2**20),
    # The default grows to two minutes: far too long after Triton is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A Triton that vanished, with its node, says nothing: TCP would believe in it for a quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A name with several addresses is a headless Service: every replica gets its share.
    ("grpc.lb_policy_name", "round_robin"),
    # Hosts are loopback or cluster-internal; a proxy from the environment must not stand in between.
    ("grpc.enable_http_proxy", 0),
)
# Field number, and wire type 2: length-delimited.
_RAW_INPUT_TAG = bytes([service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2])
_QUICK_TIMEOUT_S = 5.0  # of calls that run no model
_READY_TIMEOUT_S = 1.0  # a Triton that hangs is noticed within 2 s, by whoever asks twice a second
_RESTRICTED = "protocol is restricted"  # Triton's words
_NOT_READY = "is not at ready state"  # Triton's words, of a version that loads, or that is retired
_TOO_LARGE = "Received message larger than max"  # gRPC's words
_CANDIDATE = "candidate~"  # a version that the synchroniser tries; no model's name
_LONGEST_NAME = 255  # of a folder, which a model's name is

# Triton before 25.04 may die of a call that is cancelled, or too late, while it is being answered: issues 7368 and 8034
# of triton-inference-server/server. Seen of 2.51 after some 1500 such calls. Mended by its pull request 8078.
_SURVIVES_CANCELLATION = (2, 57)
_MOST_CALLS = 64  # at such a Triton at once: those among them that nobody waits for have their tensors in memory
_MOST_LEFT_BYTES = 2**28  # of tensors of calls that nobody waits for
_LEFT_ALONE_S = 60.0  # a call that nobody waits for; what takes so long hangs
_CLOSING_S = 5.0


class Predictor:
    """Triton, seen from the transformer."""

    def __init__(self, url: str) -> None:
        """Prepare a channel to Triton's gRPC, `host:port`; it connects, and reconnects, by itself. A loop must run."""
        self.url = url
        self._channel = grpc.aio.insecure_channel(url, _CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # The stub's own would copy the tensors twice more, see _encode().
        self._model_infer: Any = self._channel.unary_unary(
            f"/{service_pb2.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}/ModelInfer",
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._survives_cancellation: bool | None = None
        self._places = asyncio.Semaphore(_MOST_CALLS)
        self._calls: set[asyncio.Task[Any]] = set()
        self._left_bytes = 0

    async def close(self) -> None:
        """Close the channel."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CLOSING_S)
        await self._channel.close()

    async def ready(self) -> bool:
        """Whether Triton answers, within a second, and says that it is ready."""
        try:
            reply = await self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=_READY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.ready)

    async def models(self) -> list[str]:
        """Names of the models that serve, in alphabetical order: for a Triton that has no synchroniser.

        Raises:
            ModelsNotListed: Triton asks for a secret. We have none: the same one loads models, and so runs code.
            ServingError: as Triton answers, see `_ERRORS`.
        """
        request = service_pb2.RepositoryIndexRequest(ready=True)
        reply = await self._call(self._stub.RepositoryIndex, request, "", timeout_s=_QUICK_TIMEOUT_S)
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
            NoReadyVersion: no version of it serves.
        """
        request = service_pb2.ModelMetadataRequest(name=name)
        reply = await self._call(self._stub.ModelMetadata, request, name, timeout_s=_QUICK_TIMEOUT_S)
        served = sorted(reply.versions, key=int)
        if version and version not in served:
            raise VersionNotFound(f"model {name!r} has no version {version!r}; expected one of {', '.join(served)}")
        if not served:
            raise NoReadyVersion(name)
        return [version] if version else served

    async def infer(
        self, asked: Asked, model: Model, arrays: Mapping[str, NDArray[Any]]
    ) -> tuple[dict[str, NDArray[Any]], str]:
        """Run a model whose outputs are numbers.

        Args:
            asked: which version, what Triton's scheduler is told, and until when: what is late then is cancelled, and
                leaves Triton's queue.
            model: whose inputs and outputs are meant.
            arrays: by the name of the input, `(batch, ...)`, at most `model.max_batch_size` items; strings as objects.

        Returns:
            Outputs by name, `(batch, ...)`, and the version that answered.

        Raises:
            TensorRefused: the model takes no such arrays.
            ServingError: as Triton answers, see `_ERRORS`.
        """
        request = _compose(model.name, asked.version, [output.name for output in model.outputs], asked.scheduling)
        contents: list[Content] = []
        for name, array in arrays.items():
            request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
            contents.append(_content(name, array))
        outputs, answered = await self._infer(request, contents, asked.deadline)
        strange = [output for output in outputs if output.datatype not in DTYPES]
        if strange:
            raise PredictorError(f"{model.name}: output {strange[0].name!r} is {strange[0].datatype}, expected numbers")
        return {output.name: to_array(output) for output in outputs}, answered

    async def infer_tensors(
        self,
        asked: Asked,
        inputs: Sequence[Tensor],
        outputs: Sequence[str] = (),
        *,
        classes: Mapping[str, int] = MappingProxyType({}),
    ) -> tuple[list[Tensor], str]:
        """Run a model on its own tensors.

        Args:
            asked: which model and version, Triton's parameters (booleans, numbers or strings), and until when.
            inputs: whatever they are; Triton judges them.
            outputs: names of those that are wanted; all where there are none.
            classes: of outputs that are wanted as so many best classes.

        Returns:
            The outputs, and the version that answered.

        Raises:
            TensorRefused: the model takes no such tensors, or has no such output.
            ServingError: as Triton answers, see `_ERRORS`.
        """
        request = _compose(asked.model, asked.version, outputs, asked.parameters, classes)
        for tensor in inputs:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return await self._infer(request, [tensor.data for tensor in inputs], asked.deadline)

    async def _infer(self, request: Any, contents: Sequence[Content], deadline: Deadline) -> tuple[list[Tensor], str]:
        async def call(*, more_s: float) -> Any:
            # Triton's queue looks at it, where default_queue_policy allows.
            request.parameters["timeout"].int64_param = max(int(deadline.remaining_s * 1_000_000), 1)
            message = _encode(request, contents)
            return await self._call(infer, message, request.model_name, timeout_s=deadline.remaining_s + more_s)

        with current().trace.span("infer") as metadata:
            infer = partial(self._model_infer, metadata=metadata)
            try:
                if await self._may_cancel(deadline):
                    reply = await call(more_s=0)
                else:
                    begin, size_bytes = partial(call, more_s=_LEFT_ALONE_S), sum(map(len, contents))
                    reply = await self._to_its_end(begin, request.model_name, deadline, size_bytes)
            except PredictorUnavailable as exc:
                if request.model_version and _NOT_READY in str(exc):
                    # Retired since it was described, while others serve: retrying does not help.
                    await self.versions(request.model_name, request.model_version)
                raise
        return [
            Tensor(output.name, output.datatype, tuple(output.shape), data)
            for output, data in zip(reply.outputs, reply.raw_output_contents, strict=True)
        ], reply.model_version

    async def _may_cancel(self, deadline: Deadline) -> bool:
        """Whether Triton survives it; asked once."""
        if self._survives_cancellation is None:
            timeout_s = min(_READY_TIMEOUT_S, deadline.remaining_s)
            try:
                reply = await self._stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=timeout_s)
            except grpc.aio.AioRpcError:
                return False
            version = tuple(int(number) for number in re.findall(r"\d+", reply.version)[:2])
            self._survives_cancellation = version >= _SURVIVES_CANCELLATION
        return self._survives_cancellation

    async def _to_its_end(
        self, begin: Callable[[], Coroutine[Any, Any, Any]], name: str, deadline: Deadline, size_bytes: int
    ) -> Any:
        """Wait until the deadline or until cancelled, and leave the call to Triton: it keeps its place meanwhile."""
        if self._left_bytes > _MOST_LEFT_BYTES:
            metrics.refuse("bodies full")
            raise Overloaded(
                f"{self._left_bytes} bytes of requests that nobody waits for any more are with the predictor,"
                f" which is over the limit of {_MOST_LEFT_BYTES}"
            )
        call = None
        try:
            async with asyncio.timeout(max(deadline.remaining_s, 0)):
                await self._places.acquire()
                call = asyncio.create_task(begin())
                self._calls.add(call)
                call.add_done_callback(self._ended)
                return await asyncio.shield(call)
        except TimeoutError:
            raise PredictorTimeout(f"model {name!r}: no answer in {deadline.timeout_s:g} s") from None
        finally:
            if call is not None and not call.done():
                self._left_bytes += size_bytes
                call.add_done_callback(partial(self._forget, size_bytes))

    def _forget(self, size_bytes: int, _: asyncio.Task[Any]) -> None:
        self._left_bytes -= size_bytes

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._places.release()
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # asyncio would log one that nobody waited for

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


def _compose(
    name: str,
    version: str,
    outputs: Sequence[str],
    parameters: Mapping[str, Any],
    classes: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """A `ModelInferRequest` without inputs."""
    # The request's id, which Triton's log and trace show: what a v2 client calls its request is for its own reply.
    request = service_pb2.ModelInferRequest(model_name=name, model_version=version, id=current().request_id)
    for output in outputs:
        wanted = request.outputs.add(name=output)
        if output in classes:
            wanted.parameters["classification"].int64_param = classes[output]
    for key, value in parameters.items():
        setattr(request.parameters[key], _PARAMETER_FIELDS[type(value)], value)
    return request


def _content(name: str, array: NDArray[Any]) -> Content:
    """An array as it lies on the wire; numbers are not copied."""
    if array.dtype == np.object_:
        return from_elements(name, [text.encode() for text in array.flat]).data
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


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
            return NoReadyVersion(name)
        return ModelNotFound(f"model {name!r} is unknown")
    if _RESTRICTED in details:  # the code is UNAVAILABLE
        return ModelsNotListed(f"{subject}: {details}")
    if _TOO_LARGE in details:  # the code is RESOURCE_EXHAUSTED
        return PredictorError(f"{subject}: {details}")
    if "timeout expired" in details:  # in its queue; the code is UNAVAILABLE
        return PredictorTimeout(f"{subject}: {details}")
    return _ERRORS[code](f"{subject}: {details}")
