"""KServe's v1 protocol."""

from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane
from transformer.offload import offload
from transformer.protocol import json_responses
from transformer.rest import openapi
from transformer.rest.admitted import admitted
from transformer.rest.body import read_instances
from transformer.rest.documents import Alive, ModelReady, Models
from transformer.rest.query import query_parameters
from transformer.rest.responses import write_json
from transformer.tasks import takes_images
from transformer.triton.infer_options import InferOptions


class ModelName(Convertor[str]):
    """A name in a path, without the verb after it: `:predict` belongs to the route."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("model_name", ModelName())
router = APIRouter(tags=["v1"])


@router.get("/", summary="Liveness")
async def alive() -> Alive:
    """The route that KServe's v1 clients read as liveness."""
    return Alive()


@router.get("/v1/models", summary="Models that are ready")
async def models(request: Request) -> Models:
    """Names, in alphabetical order."""
    return Models(models=await request.app.state.dataplane.models())


@router.get("/v1/models/{model:model_name}", summary="Readiness of a model")
async def model_ready(model: str, request: Request) -> ModelReady:
    """True if a version is ready; 404 for an unknown model, 503 if none of its versions is ready."""
    await request.app.state.dataplane.versions(model)
    return ModelReady(name=model)


@router.post("/v1/models/{model:model_name}:predict", summary="Infer", openapi_extra=openapi.V1_PREDICT)
async def predict(model: str, request: Request) -> Response:
    """`{"instances": [...]}`, or an image as the body, in; `{"predictions": [...]}` out, one for each instance."""
    async with admitted(request) as (body, deadline):
        return await respond(model, request, body, deadline)


async def respond(name: str, request: Request, body: bytes, deadline: Deadline) -> Response:
    """The response to an admitted request, whose body was read.

    Raises:
        ServingError: the body or a parameter is invalid, or inference failed.
    """
    dataplane: DataPlane = request.app.state.dataplane
    model = await dataplane.model(name, deadline=deadline)
    read = partial(
        read_instances,
        body,
        request.headers.get("content-type", ""),
        images=takes_images(model),
        max_bytes=request.app.state.settings.max_image_bytes,
    )
    items = await offload(read, cost=len(body))
    options = InferOptions(deadline, parameters=query_parameters(request) | dict(items.parameters))
    if items.rows:
        rows = await dataplane.infer_rows(model, options, items.rows)
        return await write_json(
            lambda: {"predictions": rows.prediction.to_json(rows.model)}, cost=json_responses.cost([rows])
        )
    results = await dataplane.infer_images(model, options, items.images)

    def response() -> dict[str, Any]:
        return {"predictions": [orjson.Fragment(text) for text in json_responses.image_texts(results, deadline)]}

    return await write_json(response, cost=json_responses.cost(results))
