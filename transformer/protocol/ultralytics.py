"""Results as Ultralytics' `Results.summary()` and `to_json()` have them (8.4.190): a list of objects or classes.

For programs that read its JSON; of `/predict` with `format=ultralytics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from transformer.dataplane.results import ImageResult
from transformer.errors import InvalidRequest
from transformer.tasks.classify import Classification
from transformer.tasks.depth import DepthMap
from transformer.tasks.labels import class_name
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.parameter_values import read_choice
from transformer.tasks.pose import Poses
from transformer.tasks.schemas import INTEGER, NUMBER, STRING, array_of, object_of
from transformer.tasks.segment import Segments
from transformer.tasks.semantic import Segmentation
from transformer.tasks.task import Array, Schema
from transformer.triton.model import Model

Format = Literal["nereid", "ultralytics"]
FORMATS: tuple[Format, ...] = ("nereid", "ultralytics")
_DECIMALS = 5  # its default
_CORNERS = tuple(f"{axis}{number}" for number in range(1, 5) for axis in "xy")
_NUMBERS = array_of(NUMBER)

SCHEMA: Schema = array_of(
    object_of(
        {
            "name": STRING,
            "class": INTEGER,
            "confidence": NUMBER,
            "pixel_ratio": NUMBER | {"description": "of semantic segmentation"},
            "box": object_of(dict.fromkeys(_CORNERS, NUMBER), optional=_CORNERS[4:])
            | {"description": "two corners; of oriented boxes four"},
            "segments": object_of({"x": _NUMBERS, "y": _NUMBERS}),
            "keypoints": object_of({"x": _NUMBERS, "y": _NUMBERS, "visible": _NUMBERS}, optional=("visible",)),
        },
        optional=("confidence", "pixel_ratio", "box", "segments", "keypoints"),
    )
)


def read_format(value: Any) -> Format:
    """The form of a response, by the parameter `format`.

    Raises:
        InvalidRequest: there is no such form.
    """
    return read_choice("format", value, FORMATS)


def check(*, has_rows: bool, parameters: Mapping[str, Any]) -> None:
    """Reject a request whose results have no such form, before inference.

    Raises:
        InvalidRequest: they have none.
    """
    if has_rows:
        raise InvalidRequest("format: 'ultralytics' is a form of images; got rows")
    if "then" in parameters:
        raise InvalidRequest("format: 'ultralytics' has no place for the classes of `then`; expected one of the two")
    if parameters.get("mask") == "rle":
        raise InvalidRequest("parameter 'mask': got 'rle', which format 'ultralytics' lacks; expected polygon or none")


def summary(result: ImageResult) -> list[dict[str, Any]]:
    """What was found in an image; nothing of depth, as there.

    Raises:
        InvalidRequest: the task has no such form.
    """
    prediction, model = result.prediction, result.model
    if isinstance(prediction, Detections):
        return _objects(prediction, model)
    if isinstance(prediction, Classification):
        return [
            {**_class(model, each["class_id"]), "confidence": round(each["confidence"], _DECIMALS)}
            for each in prediction.to_json(model)["predictions"]
        ]
    if isinstance(prediction, Segmentation):
        return [
            {**_class(model, each["class_id"]), "pixel_ratio": round(each["pixel_ratio"], _DECIMALS)}
            for each in replace(prediction, has_mask=False).to_json(model)["predictions"]
        ]
    if isinstance(prediction, DepthMap):
        return []
    raise InvalidRequest(f"format: 'ultralytics' has no form for the task {model.task!r}; expected 'nereid'")


def _class(model: Model, class_id: int) -> dict[str, Any]:
    return {"name": class_name(model, class_id), "class": class_id}


def _objects(found: Detections, model: Model) -> list[dict[str, Any]]:
    boxes = found.corners.reshape(-1, 8) if isinstance(found, OrientedBoxes) else found.boxes_xyxy
    objects = [
        {
            **_class(model, int(class_id)),
            "confidence": round(float(score), _DECIMALS),
            "box": dict(zip(_CORNERS, _rounded(box), strict=False)),
        }
        for box, score, class_id in zip(boxes, found.scores, found.class_ids, strict=True)
    ]
    if isinstance(found, Segments) and found.mask_form == "polygon":
        for each, mask in zip(objects, found.masks, strict=True):
            each["segments"] = dict(zip("xy", map(_rounded, _ring(mask.outlines).T), strict=True))
    if isinstance(found, Poses):
        names = ("x", "y", "visible")[: model.facts["kpt_shape"][1]]
        for each, keypoints in zip(objects, found.keypoints, strict=True):
            each["keypoints"] = dict(zip(names, map(_rounded, keypoints.T), strict=False))
    return objects


def _ring(parts: Sequence[Array]) -> Array:
    """One ring `(points, 2)` of the outlines of all parts, from the first one there and back: it fills as they do."""
    first = parts[0]
    return np.concatenate([first, *(each for part in parts[1:] for each in (first[:1], part, part[:1], first[:1]))])


def _rounded(values: Array) -> list[float]:
    return [round(value, _DECIMALS) for value in values.astype(float).tolist()]
