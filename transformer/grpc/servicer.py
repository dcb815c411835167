"""`inference.GRPCInferenceService`: the v2 protocol, and Triton's ModelConfig.

Only supported methods have a handler: the service's others, which load and unload models or map memory, are
UNIMPLEMENTED.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from environment import __version__
from transformer import SERVER_NAME
from transformer.admission import Deadline
from transformer.errors import (
    MESSAGE_LENGTH,
    ClientDisconnected,
    InvalidRequest,
    ModelNotFound,
    NoServableVersion,
    OutOfMemory,
    PredictorUnavailable,
    ServingError,
)
from transformer.grpc.drain import InFlightCalls
from transformer.grpc.error_status import abort
from transformer.grpc.interceptors import shown_key
from transformer.grpc.message_limits import check_message
from transformer.grpc.receive import MessageReceiver
from transformer.grpc.v2_codec import read_request, write_response
from transformer.observability import metrics
from transformer.observability.request_record import ID_HEADER, RequestRecord, track_request
from transformer.observability.trace_context import Trace
from transformer.offload import TENSOR_BYTE, offload
from transformer.protocol.v2 import EXTENSIONS, infer
from transformer.services import Services
from transformer.tasks import interface

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

log = logging.getLogger("transformer")

_INFER = "ModelInfer"
_QUIET = ("ServerLive", "ServerReady")

Method = Callable[[Any, Deadline], Awaitable[Any]]


class Servicer:
    """The methods of the service over a data plane; a request message in, a response message out."""

    def __init__(self, services: Services, receiver: MessageReceiver, calls: InFlightCalls) -> None:
        self._dataplane = services.dataplane
        self._admission = services.admission
        self._trace = services.trace
        self._receiver = receiver
        self._calls = calls

    def handlers(self) -> grpc.GenericRpcHandler:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        methods = {name: getattr(self, name) for name in vars(type(self)) if name[0].isupper()}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            # Messages are passed as bytes: `_read` has limits and error messages that gRPC lacks. Why unary methods are
            # registered as streams of one message, says receive.py.
            {
                name: grpc.stream_unary_rpc_method_handler(self._tracked(name, method))
                for name, method in methods.items()
            },
        )

    async def ServerLive(self, _message: Any, _deadline: Deadline) -> Any:  # noqa: N802  # the protocol's name, as all below
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _message: Any, _deadline: Deadline) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=await self._dataplane.ready())

    async def ModelReady(self, message: Any, _deadline: Deadline) -> Any:  # noqa: N802
        try:
            await self._dataplane.versions(message.name, message.version)
        except (ModelNotFound, PredictorUnavailable, NoServableVersion):
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, _message: Any, _deadline: Deadline) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, message: Any, _deadline: Deadline) -> Any:  # noqa: N802
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

    async def ModelConfig(self, message: Any, _deadline: Deadline) -> Any:  # noqa: N802
        config = await self._dataplane.config(message.name, message.version)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, message: Any, deadline: Deadline) -> Any:  # noqa: N802
        if message.raw_input_contents:
            # Nothing is converted: not worth a thread.
            return write_response(await infer(self._dataplane, read_request(message, deadline)), message)
        request = await offload(lambda: read_request(message, deadline), cost=message.ByteSize())
        response = await infer(self._dataplane, request)
        cost = sum(len(output.data) for output in response.outputs) * TENSOR_BYTE
        return await offload(lambda: write_response(response, message), cost=cost)

    def _tracked(self, name: str, method: Method) -> Any:
        """A method with request id, errors, metrics, trace and log line."""

        async def behaviour(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self._calls.add(context)
            record = RequestRecord.from_headers(
                "grpc",
                name,
                path=f"/{SERVICE}/{name}",
                headers=context.invocation_metadata() or (),
                trace=Trace if name in _QUIET else self._trace,
            )
            record.route, record.status, record.key = record.path, grpc.StatusCode.UNKNOWN.name, shown_key()
            with track_request(record, quiet=(grpc.StatusCode.OK.name,) if name in _QUIET else ()):
                return await self._respond(record, method, context)

        return behaviour

    async def _respond(self, record: RequestRecord, method: Method, context: Any) -> bytes:
        name, request_id, admission = record.method, record.request_id, self._admission
        context.set_trailing_metadata(((ID_HEADER, request_id),))
        try:
            deadline = admission.deadline(context.time_remaining())
            with admission.body() as held:
                if name == _INFER:
                    admission.check()
                data = await self._receiver.receive_one(context, deadline)
                record.bytes_in = len(data)
                held.grow(len(data))
                async with admission.request_slot(deadline) if name == _INFER else nullcontext():
                    message = await offload(lambda: _read(data, f"{name}Request"), cost=len(data))
                    record.model = (getattr(message, "model_name", "") or getattr(message, "name", ""))[:MESSAGE_LENGTH]
                    response: bytes = (await method(message, deadline)).SerializeToString()
        except (ServingError, MemoryError) as exc:
            error = exc if isinstance(exc, ServingError) else OutOfMemory()
            log.log(error.log_level, "%s %s %s", request_id, error.code.grpc_status, error.for_log())
            await abort(context, error)
        except asyncio.CancelledError:
            metrics.count_rejected("client gone")
            record.status, record.code = grpc.StatusCode.CANCELLED.name, ClientDisconnected.code
            raise
        except Exception as exc:  # gRPC would send its text to the client
            log.error("%s INTERNAL unexpected", request_id, exc_info=exc)
            await abort(context, ServingError())
        record.status, record.bytes_out = grpc.StatusCode.OK.name, len(response)
        admission.account(len(response))
        context.add_done_callback(lambda _: admission.account(-record.bytes_out))
        return response


def _read(data: bytes, type_name: str) -> Any:
    """A message of the service.

    Raises:
        InvalidRequest: it is not a message of this type.
        PayloadTooLarge: it holds too many fields.
    """
    message_type = getattr(service_pb2, type_name)
    check_message(data, message_type.DESCRIPTOR)
    try:
        return message_type.FromString(data)
    except DecodeError as exc:
        raise InvalidRequest(f"message: {len(data)} bytes are not a {type_name}; expected strings in UTF-8") from exc
