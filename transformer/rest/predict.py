"""`POST /predict/<model>`: files in, JSON or an annotated picture out."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from transformer import annotation, metrics, replies
from transformer.dataplane import DataPlane, ImageResult
from transformer.errors import InvalidRequest
from transformer.model import Model
from transformer.parameters import NAMES
from transformer.rest import openapi
from transformer.rest.body import Items, read_body, read_instances, read_items
from transformer.settings import TransformerSettings

PictureType = Literal["image/jpeg", "image/png"]

router = APIRouter()


@router.post("/predict/{model}", tags=["predict"], summary="Ask a model", openapi_extra=openapi.PREDICT)
async def predict(model: str, request: Request) -> Response:
    """Pictures as multipart files named `image` or as a raw body, or rows as JSON."""
    parameters = _query_parameters(request)
    settings: TransformerSettings = request.app.state.settings
    body = await read_body(request, max_bytes=settings.max_body_bytes)
    items = read_items(body, request.headers.get("content-type", ""))
    picture_type = _accepted_picture(request.headers.get("accept", ""))
    results = await _infer(request.app.state.dataplane, model, items, parameters)
    if isinstance(results, dict):
        return _json(results)
    if picture_type is None:
        answers = [replies.image_reply(result) for result in results]
        return _json(answers if items.many else answers[0])
    if len(results) > 1:
        raise InvalidRequest(f"Accept: {picture_type}: got {len(results)} pictures, expected one")
    picture = await run_in_threadpool(_annotate, results[0], picture_type)
    return Response(picture, media_type=picture_type)


@router.post("/v1/models/{model}:predict", tags=["v1"], summary="v1 predict", openapi_extra=openapi.V1_PREDICT)
async def predict_v1(model: str, request: Request) -> Response:
    """KServe v1: `{"instances": [...]}` in, `{"predictions": [...]}` out, one for each instance."""
    settings: TransformerSettings = request.app.state.settings
    body = await read_body(request, max_bytes=settings.max_body_bytes)
    items = read_instances(body)
    results = await _infer(request.app.state.dataplane, model, items, items.parameters)
    if isinstance(results, dict):
        return _json({"predictions": results["predictions"]})
    return _json({"predictions": [replies.image_reply(result) for result in results]})


async def _infer(
    dataplane: DataPlane, name: str, items: Items, parameters: Mapping[str, Any]
) -> list[ImageResult] | dict[str, Any]:
    """Results of pictures, or the reply for rows."""
    if items.rows:
        table = await dataplane.infer_rows(name, items.rows, parameters=parameters)
        metrics.count_item(table.model, table.stages)
        return replies.table_reply(table)
    results = await dataplane.infer_images(name, items.images, parameters=parameters)
    for result in results:
        metrics.count_item(result.model, result.stages)
    return results


def _query_parameters(request: Request) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in parameters and name == "classes":
            parameters[name] += f",{value}"
        elif name in parameters:
            raise InvalidRequest(f"parameter {name!r}: got it twice, expected once; known are {', '.join(NAMES)}")
        else:
            parameters[name] = value
    return parameters


def _accepted_picture(accept: str) -> PictureType | None:
    """The first type of `Accept` that we can write, None for JSON."""
    for entry in accept.split(","):
        media_type = entry.partition(";")[0].strip().lower()
        if media_type in get_args(PictureType):
            return "image/png" if media_type == "image/png" else "image/jpeg"
        if media_type in ("application/json", "*/*"):
            return None
    return None


def _annotate(result: ImageResult, media_type: PictureType) -> bytes:
    model: Model = result.model
    if result.detections is not None:
        names = replies.labels(result.detections, model)
        drawn = annotation.draw_detections(result.image_hwc, result.detections, labels=names)
    else:
        reply = replies.image_reply(result)
        drawn = annotation.draw_label(result.image_hwc, f"{reply['top']} {reply['confidence']:.2f}")
    return annotation.encode(drawn, media_type)


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
