"""The client of Triton: v2 over gRPC. The only module that calls Triton."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from transformer.admission import Deadline
from transformer.errors import ModelNotFound, NoReadyVersion, PredictorError, PredictorUnavailable, VersionNotFound
from transformer.observability.request_record import current_request
from transformer.triton.infer_message import compose, content, encode
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model
from transformer.triton.status import is_not_ready, translate
from transformer.triton.tensors import DTYPES, Content, Tensor, datatype_of, to_array
from transformer.triton.uncancelled import HANGING_S, UncancelledCalls, survives_cancellation

# Limit of a response: an unlimited one could take all memory. 90 outputs of a raw YOLOv8 head fit.
MAX_RESPONSE_BYTES = 2**28

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # A status comes as metadata, and Triton's lists every input of a request that it rejects.
    ("grpc.max_metadata_size", 2**20),
    ("grpc.absolute_max_metadata_size", 2**20),
    # The default grows to two minutes: far too long after Triton is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A Triton that vanished with its node closes no connection: TCP would wait for a quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A name with several addresses is a headless Service: every replica gets its share.
    ("grpc.lb_policy_name", "round_robin"),
    # Hosts are loopback or cluster-internal; a proxy from the environment must not stand in between.
    ("grpc.enable_http_proxy", 0),
)
_QUICK_TIMEOUT_S = 5.0  # of calls that run no model
_READY_TIMEOUT_S = 1.0  # with two probes a second a hanging Triton is noticed within 2 s
_CANDIDATE = "candidate~"  # a version that the synchroniser validates; no model's name
_MAX_NAME_LENGTH = 255  # of a folder, which a model's name is


class TritonClient:
    """Triton, as the transformer uses it."""

    def __init__(self, url: str, *, uncancelled: UncancelledCalls | None = None) -> None:
        """Prepare a channel, which connects and reconnects by itself; an event loop must be running.

        Args:
            url: `host:port` of Triton's gRPC.
            uncancelled: limits of calls to a Triton that does not survive cancellation.
        """
        self.url = url
        self._channel = grpc.aio.insecure_channel(url, _CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # The stub's own method would copy the tensors twice more, see encode().
        self._model_infer: Any = self._channel.unary_unary(
            f"/{service_pb2.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}/ModelInfer",
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._survives_cancellation: bool | None = None
        self._uncancelled = uncancelled or UncancelledCalls()

    async def close(self) -> None:
        """Close the channel."""
        await self._uncancelled.close()
        await self._channel.close()

    async def ready(self) -> bool:
        """Whether Triton responds within a second, and says that it is ready."""
        try:
            response = await self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=_READY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.ready)

    async def models(self) -> list[str]:
        """Names of the models that serve, in alphabetical order; for a Triton without a synchroniser.

        Raises:
            ModelsNotListed: Triton restricts its list by a secret that also loads models; this server does not have it.
            ServingError: see `status.translate`.
        """
        request = service_pb2.RepositoryIndexRequest(ready=True)
        response = await self._call(self._stub.RepositoryIndex, request, "", timeout_s=_QUICK_TIMEOUT_S)
        return sorted({model.name for model in response.models if not model.name.startswith(_CANDIDATE)})

    async def config(self, name: str, version: str = "") -> Any:
        """Triton's `inference.ModelConfig` of a model."""
        request = service_pb2.ModelConfigRequest(name=name, version=version)
        response = await self._call(self._stub.ModelConfig, request, name, timeout_s=_QUICK_TIMEOUT_S)
        return response.config

    async def versions(self, name: str, version: str = "") -> list[str]:
        """Versions of a model that serve, oldest first; or only the requested one.

        Raises:
            ModelNotFound: the model or the version is unknown.
            NoReadyVersion: no version of it serves.
        """
        request = service_pb2.ModelMetadataRequest(name=name)
        response = await self._call(self._stub.ModelMetadata, request, name, timeout_s=_QUICK_TIMEOUT_S)
        served = sorted(response.versions, key=int)
        if version and version not in served:
            raise VersionNotFound(f"model {name!r} has no version {version!r}; expected one of {', '.join(served)}")
        if not served:
            raise NoReadyVersion(name)
        return [version] if version else served

    async def infer(
        self, model: Model, options: InferOptions, arrays: Mapping[str, NDArray[Any]]
    ) -> tuple[dict[str, NDArray[Any]], str]:
        """Run a model whose outputs are numbers.

        Args:
            model: for its inputs and outputs.
            options: version, scheduling and deadline; a late call is cancelled and leaves Triton's queue.
            arrays: by the name of the input, `(batch, ...)`, at most `model.max_batch_size` items; strings as objects.

        Returns:
            Outputs by name, `(batch, ...)`, and the version that responded.

        Raises:
            TensorRejected: the model takes no such arrays.
            ServingError: see `status.translate`.
        """
        request = compose(
            (model.name, options.version),
            request_id=current_request().request_id,
            outputs=[output.name for output in model.outputs],
            parameters=options.scheduling,
        )
        contents: list[Content] = []
        for name, array in arrays.items():
            request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
            contents.append(content(name, array))
        outputs, responded = await self._infer(request, contents, options.deadline)
        texts = [output for output in outputs if output.datatype not in DTYPES]
        if texts:
            raise PredictorError(f"{model.name}: output {texts[0].name!r} is {texts[0].datatype}, expected numbers")
        return {output.name: to_array(output) for output in outputs}, responded

    async def infer_tensors(
        self,
        name: str,
        options: InferOptions,
        inputs: Sequence[Tensor],
        *,
        outputs: Sequence[str] = (),
        classes: Mapping[str, int] = MappingProxyType({}),
    ) -> tuple[list[Tensor], str]:
        """Run a model on its own tensors.

        Args:
            name: of the model.
            options: version, Triton's parameters (booleans, numbers or strings) and deadline.
            inputs: Triton checks them.
            outputs: names of the wanted ones; all where there are none.
            classes: how many best classes of an output are wanted in its place.

        Returns:
            The outputs, and the version that responded.

        Raises:
            TensorRejected: the model takes no such tensors, or has no such output.
            ServingError: see `status.translate`.
        """
        request = compose(
            (name, options.version),
            request_id=current_request().request_id,
            outputs=outputs,
            classes=classes,
            parameters=options.parameters,
        )
        for tensor in inputs:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return await self._infer(request, [tensor.data for tensor in inputs], options.deadline)

    async def _infer(self, request: Any, contents: Sequence[Content], deadline: Deadline) -> tuple[list[Tensor], str]:
        with current_request().trace.span("infer") as metadata:
            call = partial(self._call_infer, request, contents, deadline, metadata=metadata)
            try:
                if await self._is_cancellable(deadline):
                    response = await call(more_s=0)
                else:
                    response = await self._uncancelled.run(
                        partial(call, more_s=HANGING_S),
                        name=request.model_name,
                        deadline=deadline,
                        size_bytes=sum(map(len, contents)),
                    )
            except PredictorUnavailable as exc:
                if request.model_version and is_not_ready(exc):
                    # Retired since it was described, while others serve: retrying does not help.
                    await self.versions(request.model_name, request.model_version)
                raise
        return [
            Tensor(output.name, output.datatype, tuple(output.shape), data)
            for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
        ], response.model_version

    async def _call_infer(
        self, request: Any, contents: Sequence[Content], deadline: Deadline, *, metadata: Any, more_s: float
    ) -> Any:
        # Triton's queue observes it, where default_queue_policy allows.
        request.parameters["timeout"].int64_param = max(int(deadline.remaining_s * 1_000_000), 1)
        method = partial(self._model_infer, metadata=metadata)
        message = encode(request, contents)
        return await self._call(method, message, request.model_name, timeout_s=deadline.remaining_s + more_s)

    async def _is_cancellable(self, deadline: Deadline) -> bool:
        """Whether Triton survives a cancelled call; looked up once."""
        if self._survives_cancellation is None:
            timeout_s = min(_READY_TIMEOUT_S, deadline.remaining_s)
            try:
                response = await self._stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=timeout_s)
            except grpc.aio.AioRpcError:
                return False
            version = tuple(int(number) for number in re.findall(r"\d+", response.version)[:2])
            self._survives_cancellation = survives_cancellation(version)
        return self._survives_cancellation

    async def _call(self, method: Callable[..., Any], request: Any, name: str, *, timeout_s: float) -> Any:
        if len(name) > _MAX_NAME_LENGTH:
            # Triton would quote it, in a status longer than a channel takes.
            raise ModelNotFound(f"model {name[:_MAX_NAME_LENGTH]!r}... of {len(name)} characters is unknown")
        if name.startswith(_CANDIDATE):
            raise ModelNotFound(f"model {name!r} is unknown")
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise translate(exc, name) from exc
