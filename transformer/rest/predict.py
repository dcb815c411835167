"""`POST /predict/<model>`: files in, JSON or an annotated image out."""

from collections.abc import Mapping
from functools import partial

import orjson
from fastapi import APIRouter, Request, Response

from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane
from transformer.dataplane.results import ImageResult, ObjectClass
from transformer.errors import InvalidRequest
from transformer.imaging.drawing import Label, draw_captions
from transformer.imaging.encoding import ImageType, check_size, encode
from transformer.offload import ALWAYS, MULTIPART_BYTE, offload
from transformer.protocol import json_responses, ultralytics
from transformer.rest import openapi
from transformer.rest.admitted import admitted
from transformer.rest.body import read_items
from transformer.rest.query import query_parameters
from transformer.rest.responses import write_json
from transformer.settings import TransformerSettings
from transformer.tasks import takes_images
from transformer.tasks.labels import class_name
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model

_MEDIA_TYPES: Mapping[str, ImageType | None] = {
    "application/json": None,
    "*/*": None,
    "image/jpeg": "image/jpeg",
    "image/png": "image/png",
    "image/*": "image/jpeg",
}
LIMITS_REACHED = "X-Limits-Reached"  # of an annotated image, whose body cannot hold it
_MAX_ACCEPT_LENGTH = 512  # characters; a browser's are some 150
_NOT_ACCEPTED = ("0", "0.0", "0.00", "0.000")

router = APIRouter()


@router.post(
    "/predict/{model}/versions/{version}",
    tags=["predict"],
    summary="Infer by one version",
    openapi_extra=openapi.versioned(openapi.PREDICT),
)
@router.post("/predict/{model}", tags=["predict"], summary="Infer", openapi_extra=openapi.PREDICT)
async def predict(model: str, request: Request) -> Response:
    """Images as multipart files named `image` or as a raw body, or rows as JSON."""
    async with admitted(request) as (body, deadline):
        return await respond(model, request, body, deadline)


async def respond(name: str, request: Request, body: bytes, deadline: Deadline) -> Response:
    """The response to an admitted request, whose body was read.

    Raises:
        ServingError: the body, a parameter or the header Accept is invalid, or inference failed.
    """
    settings: TransformerSettings = request.app.state.settings
    dataplane: DataPlane = request.app.state.dataplane
    version = str(request.path_params.get("version", ""))
    model = await dataplane.model(name, version, deadline)
    content_type = request.headers.get("content-type", "")
    is_json = "json" in content_type.lower()
    read = partial(
        read_items,
        body,
        content_type,
        max_items=settings.max_items,
        # The model decides what JSON holds; anything else is an image.
        images=is_json and takes_images(model),
        max_bytes=settings.max_image_bytes,
    )
    items = await offload(read, cost=len(body) * (1 if is_json else MULTIPART_BYTE))
    parameters = {**query_parameters(request), **items.parameters}
    form = ultralytics.read_format(parameters.pop("format", ultralytics.FORMATS[0]))
    options = InferOptions(deadline, version, parameters)
    image_type = _accepted_image(request.headers.get("accept", ""))
    if image_type and len(items.images) != 1:
        got = f"{len(items.images)} images" if items.images else "rows"
        raise InvalidRequest(f"Accept: {image_type}: got {got}, expected one image")
    if form == "ultralytics" and not image_type:
        ultralytics.check(has_rows=bool(items.rows), parameters=parameters)
    if items.rows:
        rows = await dataplane.infer_rows(model, options, items.rows)
        return await write_json(lambda: json_responses.rows_object(rows), cost=json_responses.cost([rows]))
    results = await dataplane.infer_images(model, options, items.images, keep_images=image_type is not None)
    if image_type:
        image = await offload(lambda: _annotate(results[0], image_type), cost=ALWAYS)
        reached = json_responses.limits_reached(results)
        return Response(image, headers={LIMITS_REACHED: reached} if reached else None, media_type=image_type)
    cost = json_responses.cost(results)
    if form == "ultralytics":
        summaries = partial(map, ultralytics.summary, results)
        response = await write_json(lambda: list(summaries()) if items.many else next(summaries()), cost=cost)
        if reached := json_responses.limits_reached(results):
            response.headers[LIMITS_REACHED] = reached
        return response
    texts = partial(json_responses.image_texts, results, deadline)
    if items.many:
        return await write_json(lambda: [orjson.Fragment(text) for text in texts()], cost=cost)
    return await write_json(lambda: orjson.Fragment(texts()[0]), cost=cost)


def _accepted_image(accept: str) -> ImageType | None:
    """The image type that `Accept` prefers over JSON, None for JSON (RFC 9110, 12.5.1).

    Raises:
        InvalidRequest: the header is too long.
    """
    if len(accept) > _MAX_ACCEPT_LENGTH:
        raise InvalidRequest(f"Accept: got {len(accept)} characters, expected at most {_MAX_ACCEPT_LENGTH}")
    choices: list[tuple[float, ImageType | None]] = []
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((value for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"), "1")
        if media_type in _MEDIA_TYPES and quality.strip() not in _NOT_ACCEPTED:
            choices.append((_quality(quality), _MEDIA_TYPES[media_type]))
    # max() takes the first of equals: the order of the header decides.
    return max(choices, key=lambda choice: choice[0], default=(1.0, None))[1]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _annotate(result: ImageResult, media_type: ImageType) -> bytes:
    assert result.image_hwc is not None, "kept, because the request accepts an image"  # noqa: S101
    check_size(result.image_hwc, media_type)
    drawn = result.prediction.draw(result.image_hwc, result.model)
    boxes = result.prediction.object_boxes
    if result.then and boxes is not None:
        drawn = draw_captions(drawn, boxes, [_label(each, result.then.model) for each in result.then.classes])
    return encode(drawn, media_type)


def _label(classified: ObjectClass | None, model: Model) -> Label | None:
    if classified is None:
        return None
    name = class_name(model, classified.class_id)
    return Label(name, class_id=classified.class_id, score=classified.score)
