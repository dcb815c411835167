"""Results as the JSON that clients read: a superset of what `supervision` and Roboflow's clients read."""

import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from transformer.admission import Deadline
from transformer.dataplane.results import ImageResult, RowsResult
from transformer.errors import PayloadTooLarge
from transformer.observability.stage_timer import StageTimer
from transformer.offload import JSON_WRITTEN_BYTE
from transformer.triton.model import Model

MAX_TEXTS_BYTES = 2**28  # maps are large: as much as Triton's response may have


def image_texts(results: Sequence[ImageResult], deadline: Deadline) -> list[bytes]:
    """One object for each image, as JSON: the objects themselves take four times as much memory.

    Raises:
        DeadlineExceeded: the deadline passed in between.
        PayloadTooLarge: they are over `MAX_TEXTS_BYTES` together.
    """
    texts: list[bytes] = []
    size_bytes = 0
    for result in results:
        deadline.check("its response was written")
        texts.append(orjson.dumps(_image_object(result)))
        size_bytes += len(texts[-1])
        if size_bytes > MAX_TEXTS_BYTES:
            raise PayloadTooLarge(
                f"the JSON of {len(texts)} of {len(results)} images is over the limit of {MAX_TEXTS_BYTES} bytes; send"
                " fewer in one request, or request less of each"
            )
    return texts


def rows_object(result: RowsResult) -> dict[str, Any]:
    """One object for all rows."""
    return {
        "inference_id": str(uuid.uuid4()),
        "time": round(result.total_ms / 1000, 6),
        "model": _model(result.model),
        "timing_ms": _timing(result.stages, result.total_ms),
        "predictions": result.prediction.to_json(result.model),
    }


def limits_reached(results: Sequence[ImageResult]) -> str:
    """`limits_reached` of each image, as the text of a JSON list; empty where no image reached any."""
    reached = [dict(result.prediction.limits_reached) for result in results]
    return orjson.dumps(reached).decode() if any(reached) else ""


def cost(results: Sequence[ImageResult | RowsResult]) -> float:
    """Cost of writing results as JSON, in the unit of `offload`."""
    return sum(result.prediction.json_bytes for result in results) * JSON_WRITTEN_BYTE


def _image_object(result: ImageResult) -> dict[str, Any]:
    width, height = result.image_wh
    predicted, then = result.prediction.to_json(result.model), {}
    if result.then:
        then = {"then": _model(result.then.model)}
        for described, classified in zip(predicted["predictions"], result.then.classes, strict=True):
            described["classification"] = classified and orjson.Fragment(classified.text)
    return {
        "inference_id": str(uuid.uuid4()),
        "time": round(result.total_ms / 1000, 6),
        "image": {"width": width, "height": height},
        "model": _model(result.model),
        **then,
        "timing_ms": _timing(result.stages, result.total_ms),
        **predicted,
    }


def _model(model: Model) -> dict[str, str | None]:
    return {"name": model.name, "version": model.version, "task": model.task}


def _timing(stages: StageTimer, total_ms: float) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in stages.ms.items()} | {"total": round(total_ms, 3)}
