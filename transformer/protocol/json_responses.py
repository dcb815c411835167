"""Results as the JSON that clients read (design: a superset of what `supervision` and Roboflow's clients read)."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from transformer.admission import Deadline
from transformer.dataplane.dataplane import ImageResult, TableResult
from transformer.observability.stage_timer import Stages
from transformer.tasks.detect import Detections
from transformer.triton.model import Model

_BEST_CLASSES = 5


def image_texts(results: Sequence[ImageResult], deadline: Deadline) -> list[bytes]:
    """One object for each picture, as JSON: the objects themselves take four times as much memory.

    Raises:
        DeadlineExceeded: the time was over in between.
    """
    texts = []
    for result in results:
        deadline.check("its answer was written")
        texts.append(orjson.dumps(image_reply(result)))
    return texts


def image_reply(result: ImageResult) -> dict[str, Any]:
    """One object for one picture."""
    width, height = result.image_wh
    reply = {
        "inference_id": str(uuid.uuid4()),
        "time": round(result.total_ms / 1000, 6),
        "image": {"width": width, "height": height},
        "model": _model(result.model),
        "timing_ms": _timing(result.stages, result.total_ms),
    }
    if result.detections is not None:
        predictions = _detections(result.detections, result.model)
        return reply | {"predictions": predictions, "limits_reached": dict(result.detections.limits_reached)}
    assert result.probabilities is not None, "a result has one or the other"  # noqa: S101
    best = np.argsort(-result.probabilities, kind="stable")[:_BEST_CLASSES]
    predictions = [
        {
            "class": class_name(result.model, int(class_id)),
            "class_id": int(class_id),
            "confidence": _rounded(result.probabilities[class_id]),
        }
        for class_id in best
    ]
    top = predictions[0]
    return reply | {"predictions": predictions, "top": top["class"], "confidence": top["confidence"]}


def limits_reached(results: Sequence[ImageResult]) -> str:
    """`limits_reached` of each picture, as the text of a JSON list; empty where no picture reached any."""
    reached = [dict(result.detections.limits_reached) if result.detections else {} for result in results]
    return orjson.dumps(reached).decode() if any(reached) else ""


def table_reply(result: TableResult) -> dict[str, Any]:
    """One object for all rows."""
    return {
        "inference_id": str(uuid.uuid4()),
        "time": round(result.total_ms / 1000, 6),
        "model": _model(result.model),
        "timing_ms": _timing(result.stages, result.total_ms),
        "predictions": row_predictions(result),
    }


def row_predictions(result: TableResult) -> list[dict[str, Any]]:
    """One object for each row: class and probabilities by name, or by index where names repeat; a regressor's value."""
    model = result.model
    if not model.names:
        return [{"value": float(value)} for (value,) in result.values]
    keys = [class_name(model, class_id) for class_id in range(result.values.shape[1])]
    if len(set(keys)) < len(keys):  # two classes of one name would be one key
        keys = [str(class_id) for class_id in range(len(keys))]
    return [
        {
            "class": class_name(model, int(best)),
            "class_id": int(best),
            "confidence": _rounded(row[best]),
            "probabilities": {keys[class_id]: _rounded(p) for class_id, p in enumerate(row)},
        }
        for row, best in zip(result.values, result.values.argmax(axis=1), strict=True)
    ]


def names(detections: Detections, model: Model) -> list[str]:
    """The class of each detection."""
    return [class_name(model, int(class_id)) for class_id in detections.class_ids]


def class_name(model: Model, class_id: int) -> str:
    """Name of a class; its index where the model names none."""
    return model.names.get(class_id, str(class_id))


def _model(model: Model) -> dict[str, str | None]:
    return {"name": model.name, "version": model.version, "task": model.task}


def _timing(stages: Stages, total_ms: float) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in stages.ms.items()} | {"total": round(total_ms, 3)}


def _detections(detections: Detections, model: Model) -> list[dict[str, Any]]:
    boxes = zip(detections.boxes_xyxy.astype(float).tolist(), detections.scores, detections.class_ids, strict=True)
    return [
        {
            "x": round((x1 + x2) / 2, 3),
            "y": round((y1 + y2) / 2, 3),
            "width": round(x2 - x1, 3),
            "height": round(y2 - y1, 3),
            "confidence": _rounded(score),
            "class": class_name(model, int(class_id)),
            "class_id": int(class_id),
            "detection_id": str(uuid.uuid4()),
            "box": {"x1": round(x1, 3), "y1": round(y1, 3), "x2": round(x2, 3), "y2": round(y2, 3)},
        }
        for (x1, y1, x2, y2), score, class_id in boxes
    ]


def _rounded(score: Any) -> float:
    return round(float(score), 6)
