"""`POST /predict/<model>`: files in, JSON or an annotated picture out."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import orjson
from fastapi import APIRouter, Request, Response

from transformer.dataplane.dataplane import DataPlane, ImageResult
from transformer.errors import InvalidRequest
from transformer.imaging import annotation
from transformer.imaging.annotation import PictureType
from transformer.offload import FEW_PREDICTIONS, LITTLE_JSON_BYTES, LITTLE_PICTURE_BYTES, run
from transformer.protocol import json_responses as replies
from transformer.rest import openapi
from transformer.rest.admitted import arrived
from transformer.rest.body import read_items
from transformer.rest.query import query_parameters
from transformer.rest.responses import write_json
from transformer.settings import TransformerSettings
from transformer.triton.infer_options import Asked

_ANSWERS: Mapping[str, PictureType | None] = {
    "application/json": None,
    "*/*": None,
    "image/jpeg": "image/jpeg",
    "image/png": "image/png",
    "image/*": "image/jpeg",
}
LIMITS_REACHED = "X-Limits-Reached"  # of an annotated picture, whose body cannot hold it
_MOST_ACCEPTED = 512  # characters; a browser's are some 150
_NEVER = ("0", "0.0", "0.00", "0.000")

router = APIRouter()


@router.post("/predict/{model}", tags=["predict"], summary="Ask a model", openapi_extra=openapi.PREDICT)
async def predict(model: str, request: Request) -> Response:
    """Pictures as multipart files named `image` or as a raw body, or rows as JSON."""
    parameters = query_parameters(request)
    async with arrived(request) as (body, deadline):
        return await _answer(request, Asked(model, deadline, parameters=parameters), body)


async def _answer(request: Request, asked: Asked, body: bytes) -> Response:
    settings: TransformerSettings = request.app.state.settings
    content_type = request.headers.get("content-type", "")
    dataplane: DataPlane = request.app.state.dataplane
    is_json = "json" in content_type.lower()
    read = partial(
        read_items,
        body,
        content_type,
        max_items=settings.max_items,
        # The model decides what JSON holds; anything else is a picture.
        pictures=is_json and (await dataplane.model(asked.model, deadline=asked.deadline)).takes_pictures,
        max_bytes=settings.max_image_bytes,
    )
    items = await run(read, little=len(body) <= (LITTLE_JSON_BYTES if is_json else LITTLE_PICTURE_BYTES))
    asked = replace(asked, parameters={**asked.parameters, **items.parameters})
    picture_type = _accepted_picture(request.headers.get("accept", ""))
    if picture_type and len(items.images) != 1:
        got = f"{len(items.images)} pictures" if items.images else "rows"
        raise InvalidRequest(f"Accept: {picture_type}: got {got}, expected one picture")
    if items.rows:
        rows = await dataplane.infer_rows(asked, items.rows)
        return await write_json(lambda: replies.table_reply(rows), little=rows.values.size <= FEW_PREDICTIONS)
    keep = picture_type is not None
    results = await dataplane.infer_images(asked, items.images, keep_images=keep)
    if picture_type:
        picture = await run(lambda: _annotate(results[0], picture_type), little=False)
        reached = replies.limits_reached(results)
        return Response(picture, headers={LIMITS_REACHED: reached} if reached else None, media_type=picture_type)
    little = sum(result.count for result in results) <= FEW_PREDICTIONS
    texts = partial(replies.image_texts, results, asked.deadline)
    if items.many:
        return await write_json(lambda: [orjson.Fragment(text) for text in texts()], little=little)
    return await write_json(lambda: orjson.Fragment(texts()[0]), little=little)


def _accepted_picture(accept: str) -> PictureType | None:
    """The picture type that `Accept` prefers over JSON, None for JSON (RFC 9110, 12.5.1).

    Raises:
        InvalidRequest: the header is too long.
    """
    if len(accept) > _MOST_ACCEPTED:
        raise InvalidRequest(f"Accept: got {len(accept)} characters, expected at most {_MOST_ACCEPTED}")
    choices: list[tuple[float, PictureType | None]] = []
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((value for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"), "1")
        if media_type in _ANSWERS and quality.strip() not in _NEVER:
            choices.append((_quality(quality), _ANSWERS[media_type]))
    # max() takes the first of equals: the order of the header decides.
    return max(choices, key=lambda choice: choice[0], default=(1.0, None))[1]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _annotate(result: ImageResult, media_type: PictureType) -> bytes:
    assert result.image_hwc is not None, "kept, for it was asked for"  # noqa: S101
    annotation.check_size(result.image_hwc, media_type)
    if result.detections is not None:
        names = replies.names(result.detections, result.model)
        drawn = annotation.draw_detections(result.image_hwc, result.detections, names=names)
    else:
        top = replies.image_reply(result)["predictions"][0]
        class_id, score = top["class_id"], top["confidence"]
        drawn = annotation.draw_class(result.image_hwc, top["class"], class_id=class_id, score=score)
    return annotation.encode(drawn, media_type)
