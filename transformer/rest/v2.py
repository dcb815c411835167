"""Open Inference Protocol (v2) over HTTP."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from environment import __version__
from transformer import SERVER_NAME
from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane
from transformer.errors import NotReady
from transformer.offload import TENSOR_BYTE, offload
from transformer.protocol import v2_second_step
from transformer.protocol.v2 import EXTENSIONS, infer
from transformer.protocol.v2_messages import InferRequest
from transformer.protocol.v2_raw import read_raw_input
from transformer.rest import openapi
from transformer.rest.admitted import admitted
from transformer.rest.documents import Live, ModelMetadata, ModelParameters, ModelReady, Models, Ready, Server, Tensor
from transformer.rest.query import query_parameters
from transformer.rest.v2_codec import HEADER_LENGTH, Document, read_document, read_header_length, write_response
from transformer.tasks import finds_objects, interface, task_of

router = APIRouter(tags=["v2"])

Handler = TypeVar("Handler", bound=Callable[..., Any])


def _of_model(
    method: str, path: str, *, summary: str, operation: dict[str, Any] | None = None
) -> Callable[[Handler], Handler]:
    """A route of a model, and the same of one of its versions."""

    def register(handler: Handler) -> Handler:
        routes = {
            "/v2/models/{model}": operation or {},
            "/v2/models/{model}/versions/{version}": openapi.versioned(operation or {}),
        }
        for start, described in routes.items():
            router.add_api_route(start + path, handler, methods=[method], summary=summary, openapi_extra=described)
        return handler

    return register


@router.head("/v2/health/live", include_in_schema=False)
@router.get("/v2/health/live", summary="Liveness")
async def live() -> Live:
    """True while the process responds."""
    return Live()


@router.head("/v2/health/ready", include_in_schema=False)
@router.get("/v2/health/ready", summary="Readiness")
async def ready(request: Request) -> Ready:
    """True while Triton is ready and has loaded its first models; 503 otherwise."""
    if not await request.app.state.dataplane.ready():
        raise NotReady("Triton does not respond, or the first models are being loaded")
    return Ready()


@router.get("/v2", summary="Metadata of the server")
async def server_metadata() -> Server:
    """Name, version, and the supported extensions of the protocol."""
    return Server(name=SERVER_NAME, version=__version__, extensions=list(EXTENSIONS))


@router.get("/v2/models", summary="Models that are ready")
async def models(request: Request) -> Models:
    """Names, in alphabetical order."""
    return Models(models=await request.app.state.dataplane.models())


@_of_model("GET", "", summary="Metadata of a model")
async def model_metadata(model: str, request: Request) -> ModelMetadata:
    """Versions that are ready, platform, inputs and outputs of `infer`; the model's own tensors in `parameters`."""
    dataplane: DataPlane = request.app.state.dataplane
    described = await dataplane.model(model, _version(request))
    inputs, outputs = interface(described)
    task = task_of(described)
    return ModelMetadata(
        name=described.name,
        versions=await dataplane.versions(model, _version(request)),
        platform=described.platform,
        inputs=[*map(Tensor.of, inputs)],
        outputs=[*map(Tensor.of, outputs)],
        parameters=ModelParameters(
            task=described.task,
            names=list(described.names.values()),
            class_ids=list(described.names),
            model_inputs=[*map(Tensor.of, described.inputs)],
            model_outputs=[*map(Tensor.of, described.outputs)],
            then_outputs=[*map(Tensor.of, v2_second_step.OUTPUTS)] if finds_objects(task) else [],
            **(task.metadata(described) if task else {}),
        ),
    )


@_of_model("GET", "/ready", summary="Readiness of a model")
async def model_ready(model: str, request: Request) -> ModelReady:
    """True if it is ready; 404 for an unknown model or version, 503 if none of its versions is ready."""
    await request.app.state.dataplane.versions(model, _version(request))
    return ModelReady(name=model)


@_of_model("GET", "/config", summary="The model's config.pbtxt", operation=openapi.CONFIG)
async def model_config(model: str, request: Request) -> dict[str, Any]:
    """Triton's model configuration extension, for clients that preprocess by themselves."""
    return _plain(await request.app.state.dataplane.config(model, _version(request)))


@_of_model("POST", "/infer", summary="Infer", operation=openapi.V2_INFER)
async def model_infer(model: str, request: Request) -> Response:
    """Images as a BYTES tensor `image`, rows as FP32 or FP64, or the model's own tensors."""
    async with admitted(request) as (body, deadline):
        return await respond(model, request, body, deadline)


async def respond(model: str, request: Request, body: bytes, deadline: Deadline) -> Response:
    """The response to an admitted request, whose body was read.

    Raises:
        ServingError: the body or a parameter is invalid, or inference failed.
    """
    dataplane: DataPlane = request.app.state.dataplane
    version = _version(request)
    header_length = read_header_length(request.headers.get(HEADER_LENGTH), body)
    if header_length or HEADER_LENGTH not in request.headers:
        # Tensors follow the header; they are not converted.
        document = await offload(lambda: read_document(body, header_length), cost=header_length or len(body))
    else:
        # Triton's "raw binary request": no JSON at all.
        described = await dataplane.model(model, version, deadline)
        document = Document(inputs=[read_raw_input(described, body)], binary=True)
    infer_request = InferRequest(
        model,
        document.inputs,
        deadline,
        version=version,
        outputs=list(document.outputs),
        classes=document.classes,
        parameters=document.parameters,
        query=query_parameters(request),
    )
    response = await infer(dataplane, infer_request)
    cost = sum(len(output.data) for output in response.outputs) * TENSOR_BYTE
    content, length = await offload(lambda: write_response(response, document), cost=cost)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={HEADER_LENGTH: str(length)}, media_type="application/octet-stream")


def _version(request: Request) -> str:
    """The version in the path; as an argument of a route without one, FastAPI would read it from the query."""
    return str(request.path_params.get("version", ""))


def _plain(message: Any) -> dict[str, Any]:
    """A protobuf message as Triton writes it: `json_format` writes 64-bit integers as strings."""
    return {
        field.name: _plain_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_field(field: Any, value: Any) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        of_value = field.message_type.fields_by_name["value"]
        return {str(key): _plain_field(of_value, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_plain_value(field, item) for item in value]
    return _plain_value(field, value)


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type:
        return _plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value
