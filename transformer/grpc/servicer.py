"""`inference.GRPCInferenceService`: the v2 protocol, and Triton's ModelConfig.

Only what is served has a handler: the service's other methods, which load and unload models or map memory among them,
are answered UNIMPLEMENTED by gRPC itself.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from transformer import SERVER_NAME, __version__, metrics
from transformer.dataplane import DataPlane
from transformer.errors import InvalidRequest, ModelNotFound, PredictorUnavailable, ServingError
from transformer.grpc.calls import Calls
from transformer.grpc.limits import check_message
from transformer.grpc.tensors import read_request, write_response
from transformer.inference import EXTENSIONS, infer, interface
from transformer.work import LITTLE_ANSWER_BYTES, LITTLE_JSON_BYTES, run

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

log = logging.getLogger("transformer")

_ID_KEY = "x-request-id"
_QUIET = ("ServerLive", "ServerReady", "ModelReady")


class Servicer:
    """The methods of the service over a data plane; a request message in, a reply message out."""

    def __init__(self, dataplane: DataPlane, calls: Calls) -> None:
        self._dataplane = dataplane
        self._calls = calls

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a `grpc.aio.Server` takes."""
        methods = {name: getattr(self, name) for name in vars(type(self)) if name[0].isupper()}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            # Messages come as bytes: `_read` has limits and words for what is wrong that gRPC has not.
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answered(name, method),
                    response_serializer=getattr(service_pb2, f"{name}Response").SerializeToString,
                )
                for name, method in methods.items()
            },
        )

    async def ServerLive(self, _: Any) -> Any:  # noqa: N802  # the protocol's name, as all below
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=await self._dataplane.ready())

    async def ModelReady(self, message: Any) -> Any:  # noqa: N802
        try:
            await self._dataplane.versions(message.name, message.version)
        except (ModelNotFound, PredictorUnavailable):
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, _: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, message: Any) -> Any:  # noqa: N802
        model = await self._dataplane.model(message.name, message.version)
        inputs, outputs = interface(model)
        metadata = service_pb2.ModelMetadataResponse
        return metadata(
            name=model.name,
            versions=await self._dataplane.versions(message.name, message.version),
            platform=model.platform,
            inputs=[metadata.TensorMetadata(name=t.name, datatype=t.datatype, shape=t.shape) for t in inputs],
            outputs=[metadata.TensorMetadata(name=t.name, datatype=t.datatype, shape=t.shape) for t in outputs],
        )

    async def ModelConfig(self, message: Any) -> Any:  # noqa: N802
        config = await self._dataplane.config(message.name, message.version)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, message: Any) -> Any:  # noqa: N802
        if message.raw_input_contents:
            # Nothing is converted: not worth a thread.
            return write_response(await infer(self._dataplane, read_request(message)), message)
        request = await run(lambda: read_request(message), little=message.ByteSize() <= LITTLE_JSON_BYTES)
        response = await infer(self._dataplane, request)
        little = sum(len(output.data) for output in response.outputs) <= LITTLE_ANSWER_BYTES
        return await run(lambda: write_response(response, message), little=little)

    def _answered(self, name: str, method: Callable[[Any], Awaitable[Any]]) -> Any:
        """A method with what every request gets: an id that is returned, our errors as gRPC's, a metric, a log line."""

        async def behaviour(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            request_id = read_request_id(tuple(context.invocation_metadata() or ()))
            # Not the initial ones: once these are sent, no client repeats a call that was refused as UNAVAILABLE.
            context.set_trailing_metadata(((_ID_KEY, request_id),))
            code = grpc.StatusCode.UNKNOWN
            try:
                with self._calls:
                    little = len(data) <= LITTLE_JSON_BYTES
                    reply = await method(await run(lambda: _read(data, f"{name}Request"), little=little))
                code = grpc.StatusCode.OK
                return reply
            except ServingError as exc:
                code = exc.code
                log.log(exc.log_level, "%s %s %s", request_id, code.name, exc.for_log())
                if exc.retry_after_s is not None:
                    context.set_trailing_metadata(((_ID_KEY, request_id), ("retry-after", str(exc.retry_after_s))))
                await context.abort(code, exc.for_client(request_id))
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exc:  # gRPC would send the client its text
                code = grpc.StatusCode.INTERNAL
                log.error("%s INTERNAL unexpected", request_id, exc_info=exc)
                await context.abort(code, f"internal error (request {request_id})")
            finally:
                seconds = time.perf_counter() - started
                metrics.count_request(f"/{SERVICE}/{name}", code.name, seconds)
                quiet = name in _QUIET and code is grpc.StatusCode.OK
                line = "%s gRPC %s %s %.1fms"
                log.log(logging.DEBUG if quiet else logging.INFO, line, request_id, name, code.name, seconds * 1000)

        return behaviour


def _read(data: bytes, type_name: str) -> Any:
    """A message of the service.

    Raises:
        InvalidRequest: it is none.
        PayloadTooLarge: it holds too many fields.
    """
    message_type = getattr(service_pb2, type_name)
    check_message(data, message_type.DESCRIPTOR)
    try:
        return message_type.FromString(data)
    except DecodeError as exc:
        raise InvalidRequest(f"message: {len(data)} bytes that are no {type_name}: text that is no UTF-8?") from exc


def read_request_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """The id that the client gave, or a new one."""
    given = dict(metadata).get(_ID_KEY, "")
    # HTTP/2 brings bytes of any kind; only these can be sent back.
    if isinstance(given, str) and given and given.isascii() and given.isprintable():
        return given[:128]
    return uuid.uuid4().hex
