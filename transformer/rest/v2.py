"""Open Inference Protocol (v2): health and metadata."""

from typing import Any

from fastapi import APIRouter, Request, Response

from transformer.dataplane import DataPlane
from transformer.errors import PredictorUnavailable
from transformer.rest import openapi

router = APIRouter(tags=["v2"])


@router.head("/v2/health/live", include_in_schema=False)
@router.get("/v2/health/live", summary="The process answers", openapi_extra=openapi.HEALTH)
async def live() -> dict[str, bool]:
    """True while the process can answer at all."""
    return {"live": True}


@router.head("/v2/health/ready", include_in_schema=False)
@router.get("/v2/health/ready", summary="Requests can be answered", openapi_extra=openapi.HEALTH)
async def ready(request: Request) -> dict[str, bool]:
    """True while Triton is ready; 503 else."""
    if not await request.app.state.dataplane.ready():
        raise PredictorUnavailable("not ready: Triton does not answer")
    return {"ready": True}


@router.get("/v2/models/{model}", summary="What a model takes and gives", openapi_extra=openapi.MODEL)
async def model_metadata(model: str, request: Request, response: Response) -> dict[str, Any]:
    """Name, versions, platform, inputs and outputs as Triton serves them."""
    dataplane: DataPlane = request.app.state.dataplane
    description = await dataplane.model(model)
    response.headers["Cache-Control"] = "no-store"
    lead = [description.batch_dim]
    return {
        "name": description.name,
        "versions": await dataplane.versions(model),
        "platform": description.platform,
        "inputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": lead + list(tensor.dims)}
            for tensor in (description.input,)
        ],
        "outputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": lead + list(tensor.dims)}
            for tensor in description.outputs
        ],
        "parameters": {"task": description.task, "names": list(description.names.values())},
    }
