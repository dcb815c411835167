"""The candidates among the outputs of a model that finds objects, with what belongs to each beside its box.

In less than FP32 a candidate of a low score may be anywhere, so that outputs are compared object by object, not number
by number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.golden import Arrays

_REST = {"segment": "coefficients", "pose": "keypoints", "obb": "angles"}
_TASKS = ("detect", *_REST)
# Tolerances: of keypoints, of their visibilities, of angles in radians, and of a mask the share that is not common.
_KEYPOINTS_PX, _VISIBILITY, _ANGLE, _MASK = 4.0, 0.1, 0.05, 0.1


@dataclass(frozen=True)
class Objects:
    """Candidates of a batch.

    Attributes:
        boxes: `(batch, N, 4)`, centre and size, or corners; both sides of a comparison have the same.
        scores, classes: `(batch, N)`.
        task: by which `rest` is compared.
        rest: `(batch, N, R)`: coefficients, keypoints, angle; None of boxes alone.
        values: numbers of each keypoint, 2 or 3.
        prototypes: of masks, `(batch, M, height, width)`.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    classes: NDArray[Any]
    task: str = "detect"
    rest: NDArray[Any] | None = None
    values: int = 3
    prototypes: NDArray[Any] | None = None

    @property
    def rest_name(self) -> str:
        """What `rest` is, for messages."""
        return {"segment": "mask", "pose": "set of keypoints"}.get(self.task, "angle")


def read_objects(outputs: Arrays, metadata: Mapping[str, Any]) -> Objects | None:
    """Read outputs of either interface; None where they are not those of a model that finds objects.

    Args:
        outputs: by tensor name, with their batch dimension.
        metadata: `parameters.metadata`, as it stands in the config.
    """
    if {"boxes", "scores", "classes"} <= outputs.keys():
        return _read_fused(outputs, metadata)
    head = outputs.get("output0")
    task = metadata.get("task")
    if head is None or head.ndim != 3 or task not in _TASKS or outputs.keys() - {"output0", "output1"}:
        return None
    return _read_head(head, outputs.get("output1"), metadata)


def _read_fused(outputs: Arrays, metadata: Mapping[str, Any]) -> Objects | None:
    boxes, scores, classes = outputs["boxes"], outputs["scores"], outputs["classes"]
    if boxes.ndim != 3 or scores.shape != boxes.shape[:2] or classes.shape != scores.shape:
        return None
    for task, name in _REST.items():
        rest = outputs.get(name)
        if rest is not None and rest.ndim > 1 and rest.shape[:2] == scores.shape:
            flat = rest.reshape(*scores.shape, -1)
            return Objects(boxes, scores, classes, task, flat, _values(metadata), _four(outputs.get("prototypes")))
    return Objects(boxes, scores, classes)


def _read_head(head: NDArray[Any], prototypes: NDArray[Any] | None, metadata: Mapping[str, Any]) -> Objects | None:
    """Objects of a bare head: `(batch, N, 6 + rest)` or, with a score for each class, `(batch, N, 4 + classes)`.

    Where it needs NMS, it is `(batch, 4 + classes + rest, N)`.
    """
    task = str(metadata["task"])
    is_finished = bool(metadata.get("end2end", head.shape[2] == 6))
    rows = head if is_finished else head.transpose(0, 2, 1)
    columns = rows.shape[2]
    if is_finished and not metadata.get("class_scores"):
        if columns < 6:
            return None
        boxes, scores, classes, first = rows[..., :4], rows[..., 4], rows[..., 5].astype(np.int64), 6
    else:
        first = columns if task == "detect" else 4 + _count_classes(metadata)
        if not 4 < first <= columns:
            return None
        class_scores = rows[..., 4:first]
        boxes, scores, classes = rows[..., :4], class_scores.max(axis=2), class_scores.argmax(axis=2)
    sides = metadata.get("imgsz")
    if metadata.get("resize") == "stretch" and isinstance(sides, list | tuple) and len(sides) == 2:
        boxes = boxes * np.array([sides[1], sides[0]] * 2, np.float32)
    rest = rows[..., first:] if first < columns else None
    return Objects(boxes, scores, classes, task, rest, _values(metadata), _four(prototypes))


def _four(prototypes: NDArray[Any] | None) -> NDArray[Any] | None:
    return prototypes if prototypes is not None and prototypes.ndim == 4 else None


def measure_rest(wanted: Objects, found: Objects, row: int, index: int, other: int) -> float:
    """How far what belongs to two candidates is apart, in units of the tolerance; 0 of boxes alone.

    Args:
        wanted: one side.
        found: the other.
        row: of the batch.
        index: of the candidate of one side.
        other: of that of the other.
    """
    if wanted.rest is None or found.rest is None or wanted.task == "detect":
        return 0.0
    one, two = wanted.rest[row, index].astype(np.float64), found.rest[row, other].astype(np.float64)
    if wanted.task == "obb":
        return float(np.abs(one - two).max()) / _ANGLE
    if wanted.task == "pose":
        if one.size % wanted.values:
            return float(np.abs(one - two).max()) / _KEYPOINTS_PX
        apart = np.abs(one - two).reshape(-1, wanted.values)
        return max(float(apart[:, :2].max()) / _KEYPOINTS_PX, float(apart[:, 2:].max(initial=0)) / _VISIBILITY)
    if wanted.prototypes is None or found.prototypes is None or one.size != wanted.prototypes.shape[1]:
        return float(np.abs(one - two).max())
    masks = [
        np.tensordot(coefficients, prototypes[row].astype(np.float64), axes=1) > 0
        for coefficients, prototypes in ((one, wanted.prototypes), (two, found.prototypes))
    ]
    union = int(np.count_nonzero(masks[0] | masks[1]))
    return int(np.count_nonzero(masks[0] ^ masks[1])) / max(union, 1) / _MASK


def _values(metadata: Mapping[str, Any]) -> int:
    """Numbers of each keypoint."""
    shape = metadata.get("kpt_shape")
    return 2 if isinstance(shape, list | tuple) and len(shape) == 2 and shape[1] == 2 else 3


def _count_classes(metadata: Mapping[str, Any]) -> int:
    names = metadata.get("names")
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        return max(map(int, names), default=-1) + 1
    return len(names) if isinstance(names, list | tuple) else 0
