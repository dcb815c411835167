"""The dialect of DeepStack and CodeProject.AI, which cameras and home automation speak: `POST /v1/vision/detection`.

https://docs.deepstack.cc/object-detection, https://codeproject.github.io/codeproject.ai/api/api_reference.html. One
image in a form in; boxes in whole pixels out, which some clients read into integers. Every model that finds objects is
one for it.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Request, Response
from multipart import parse_options_header
from pydantic import Field
from starlette.convertors import register_url_convertor

from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane
from transformer.dataplane.results import ImageResult
from transformer.errors import (
    InvalidRequest,
    ModelNotFound,
    NoServableVersion,
    NotReady,
    RouteNotFound,
    UnsupportedMedia,
)
from transformer.observability.request_record import current_request
from transformer.offload import MULTIPART_BYTE, offload
from transformer.protocol import json_responses
from transformer.rest import openapi
from transformer.rest.admitted import admitted
from transformer.rest.default_model import find_default_model
from transformer.rest.documents import ERRORS, Document, Error
from transformer.rest.multipart import read_parts
from transformer.rest.predict import LIMITS_REACHED
from transformer.rest.query import query_parameters
from transformer.rest.responses import write_json
from transformer.rest.v1 import ModelName
from transformer.tasks import finds_objects, task_of
from transformer.tasks import parameters as task_parameters
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.objects import Detections
from transformer.tasks.parameter_values import read_fraction
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model, ModelConfigError

MIN_CONFIDENCE = 0.4  # of both originals, and below it Frigate reads no further
_MESSAGE_LABELS = 3
_SHOWN_MODELS = 20
_FORM = "multipart/form-data"


class VisionPrediction(Document):
    """An object; its box in whole pixels of the image."""

    label: str
    confidence: float
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class VisionDetections(Document):
    """The objects of an image, best first."""

    success: Literal[True] = True
    message: str
    count: int
    predictions: list[VisionPrediction]
    duration: float = Field(description="seconds, as DeepStack has them")
    inferenceMs: int  # noqa: N815  # CodeProject.AI's names
    processMs: int  # noqa: N815


class VisionModels(Document):
    """Names of the models that find objects."""

    success: Literal[True] = True
    models: list[str]


class VisionError(Error):
    """The body of an error on these routes."""

    success: Literal[False] = False


class VisionModelName(ModelName):
    """A name in a path, but `list`, which is a route."""

    regex = "(?!list$)[^/]+"


class Form(NamedTuple):
    """What a client sends: an encoded image, and parameters of a task."""

    image: bytes
    parameters: Mapping[str, Any]


register_url_convertor("vision_model_name", VisionModelName())
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: described | {"model": VisionError} for status, described in ERRORS.items()
}
_DETECTIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": VisionDetections,
        "headers": {LIMITS_REACHED: {"description": "as of /predict", "schema": {"type": "string"}}},
    }
}
_BODY: dict[str, Any] = {
    "parameters": [
        each for each in openapi.PREDICT["parameters"] if each["name"] not in {"confidence", "then", "format"}
    ],
    "requestBody": {
        "required": True,
        "content": {
            _FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "min_confidence": {"type": "number", "minimum": 0, "maximum": 1, "default": MIN_CONFIDENCE},
                        "api_key": {"type": "string", "description": "before the image; or a header, as elsewhere"},
                    },
                    "required": ["image"],
                }
            }
        },
    },
}
router = APIRouter(prefix="/v1/vision", tags=["vision"], responses=_ERRORS)


@router.post("/detection", summary="Find objects by the default model", responses=_DETECTIONS, openapi_extra=_BODY)
async def detection(request: Request) -> Response:
    """An image as the field `image` of a form; the model is `TRANSFORMER_DEFAULT_MODEL`, else the only one for it."""
    async with admitted(request) as (body, deadline):
        model = await _choose_model(request, deadline)
        request.path_params["model"] = model.name  # for the metrics
        return await _respond(model, request, body, deadline)


@router.get("/custom/list", summary="Models that find objects")
@router.api_route("/custom/list", methods=["GET", "POST"], include_in_schema=False)  # the originals have POST
async def custom_models(request: Request) -> VisionModels:
    """Names for `/v1/vision/custom/<model>`, in alphabetical order."""
    dataplane: DataPlane = request.app.state.dataplane
    models = await _finders(dataplane, await dataplane.models())
    return VisionModels(models=[model.name for model in models])


@router.post(
    "/custom/{model:vision_model_name}", summary="Find objects by a model", responses=_DETECTIONS, openapi_extra=_BODY
)
async def custom(model: str, request: Request) -> Response:
    """An image as the field `image` of a form."""
    async with admitted(request) as (body, deadline):
        described = await request.app.state.dataplane.model(model, deadline=deadline)
        return await _respond(described, request, body, deadline)


@router.api_route("/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
async def others(request: Request) -> Response:
    """Faces, scenes and the rest of the originals.

    Raises:
        RouteNotFound: always.
    """
    raise RouteNotFound(
        f"no route {request.url.path[:200]}: of DeepStack's and CodeProject.AI's, this server has POST"
        " /v1/vision/detection, /v1/vision/custom/<model> and /v1/vision/custom/list"
    )


async def _respond(model: Model, request: Request, body: bytes, deadline: Deadline) -> Response:
    """The response to an admitted request, whose body was read.

    Raises:
        ServingError: the body or a parameter is invalid, the model finds no objects, or inference failed.
    """
    if not finds_objects(task_of(model)):
        raise InvalidRequest(
            f"{model.name} finds no objects (task: {model.task}); next: /v1/vision/custom/list names those that do,"
            f" and /predict/{model.name} has every task"
        )
    read = partial(
        read_form,
        body,
        request.headers.get("content-type", ""),
        max_parts=request.app.state.settings.max_items,
    )
    form = await offload(read, cost=len(body) * MULTIPART_BYTE)
    parameters = {"confidence": MIN_CONFIDENCE, **query_parameters(request), **form.parameters}
    if "then" in parameters:
        raise InvalidRequest(
            "parameter 'then': this response has no place for it; next: /predict/<model>?then=<classifier>"
        )
    dataplane: DataPlane = request.app.state.dataplane
    results = await dataplane.infer_images(model, InferOptions(deadline, parameters=parameters), [form.image])
    response = await write_json(lambda: describe(results[0]).model_dump(), cost=json_responses.cost(results))
    if reached := json_responses.limits_reached(results):
        response.headers[LIMITS_REACHED] = reached
    return response


def read_form(body: bytes, content_type: str, *, max_parts: int) -> Form:
    """The image and the parameters of a form.

    Raises:
        UnsupportedMedia: it is no form.
        InvalidRequest: it has not one image, or a parameter is invalid.
        PayloadTooLarge: more parts than `max_parts`.
    """
    media_type = parse_options_header(content_type)[0]
    if media_type != _FORM:
        raise UnsupportedMedia(f"Content-Type: got {media_type[:60] or 'none'!r}, expected {_FORM} with a file 'image'")
    parts = read_parts(body, content_type, max_parts=max_parts)
    images = [part.data for part in parts if part.name == "image"]
    if len(images) != 1:
        got = ", ".join(sorted({repr(part.name[:60]) for part in parts})[:10]) or "none"
        raise InvalidRequest(f"{_FORM}: got {len(images)} images in fields {got}, expected one file 'image'")
    texts = {part.name: part.data.decode("utf-8", "replace") for part in parts if part.name != "image"}
    parameters: dict[str, Any] = {name: text for name, text in texts.items() if name in task_parameters()}
    if text := texts.get("min_confidence"):
        parameters["confidence"] = read_fraction("min_confidence", text)
    return Form(images[0], parameters)


def describe(result: ImageResult) -> VisionDetections:
    """The objects of an image in this dialect, by their upright boxes."""
    prediction = result.prediction
    assert isinstance(prediction, Detections), "the task finds objects"  # noqa: S101
    corners = np.rint(prediction.boxes_xyxy).astype(int).tolist()
    found = [
        VisionPrediction(
            label=class_name(result.model, int(class_id)),
            confidence=round_score(score),
            x_min=x_min,
            y_min=y_min,
            x_max=x_max,
            y_max=y_max,
        )
        for (x_min, y_min, x_max, y_max), score, class_id in zip(
            corners, prediction.scores, prediction.class_ids, strict=True
        )
    ]
    labels = ", ".join(each.label for each in found[:_MESSAGE_LABELS])
    return VisionDetections(
        message=f"Found {labels}{'...' if len(found) > _MESSAGE_LABELS else ''}" if found else "No objects found",
        count=len(found),
        predictions=found,
        duration=round(result.total_ms / 1000, 6),
        inferenceMs=round(result.stages.ms["infer"]),
        processMs=round(result.total_ms),
    )


async def _choose_model(request: Request, deadline: Deadline) -> Model:
    """The model of a request that names none.

    Raises:
        InvalidRequest: there are several.
        NotReady: there is none.
        ServingError: one that is to be loaded cannot be described yet: it may be the second.
    """
    dataplane: DataPlane = request.app.state.dataplane
    if model := await find_default_model(request, deadline):
        return model
    models = await _finders(dataplane, await dataplane.names(), deadline)
    if not models:
        raise NotReady("no model that finds objects serves, or is being loaded; see /status")
    if len(models) > 1:
        names = ", ".join([*(each.name for each in models[:_SHOWN_MODELS]), *["..."] * (len(models) > _SHOWN_MODELS)])
        raise InvalidRequest(
            f"{request.url.path} names no model, and several find objects; expected /v1/vision/custom/<model>, or the"
            f" setting TRANSFORMER_DEFAULT_MODEL, with one of {names}"
        )
    return models[0]


async def _finders(dataplane: DataPlane, names: list[str], deadline: Deadline | None = None) -> list[Model]:
    """Those of the models that find objects; without those that cannot serve, whatever comes."""
    models = []
    with current_request().keep_model():
        for name in names:
            try:
                model = await dataplane.model(name, deadline=deadline)
            except (ModelNotFound, NoServableVersion, ModelConfigError):
                continue
            if finds_objects(task_of(model)):
                models.append(model)
    return models
