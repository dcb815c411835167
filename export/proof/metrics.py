"""The metric of each task that finds objects: mAP50-95 of boxes, masks, keypoints or rotated boxes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from export.proof.average_precision import Entry, evaluate
from export.proof.rotated_precision import Rotated, rotated_average_precision
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.pose import Poses
from transformer.tasks.segment import Segments
from transformer.triton.model import Model

Found = Mapping[str, Detections]
Sizes = Mapping[str, tuple[int, int]]

# In the manifest, by task.
NAMES: Mapping[str, str] = {"detect": "box", "segment": "mask", "pose": "pose", "obb": "obb"}
# COCO's, of a person; others count alike, as in Ultralytics' `val`.
_PERSON_SIGMAS = [n / 1000 for n in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)]
_VISIBLE = 0.5
_BODY = 0.53  # of a box's area: what COCO counts as the area of a person without a mask


def measure_precision(found: Found, truth: Found, sizes_wh: Sizes, model: Model) -> float:
    """mAP50-95.

    Args:
        found: by image.
        truth: by image, what counts as right.
        sizes_wh: of each image.
        model: its task.
    """
    if model.task == "obb":
        return rotated_average_precision(
            *({name: _rotated(each) for name, each in all_.items()} for all_ in (found, truth))
        )
    read, kind = _READERS[model.task or ""]
    results, annotations = ({name: list(read(objects)) for name, objects in all_.items()} for all_ in (found, truth))
    sigmas = None
    if kind == "keypoints":
        count, values = model.facts["kpt_shape"]
        is_person = (count, values) == (len(_PERSON_SIGMAS), 3)
        sigmas = _PERSON_SIGMAS if is_person else [1 / count] * count
    return evaluate(results, annotations, sizes_wh, kind=kind, sigmas=sigmas)[0]


def _entries(found: Detections) -> Iterator[Entry]:
    for (x1, y1, x2, y2), score, class_id in zip(
        found.boxes_xyxy.astype(float).tolist(), found.scores, found.class_ids, strict=True
    ):
        size = x2 - x1, y2 - y1
        yield {
            "bbox": [x1, y1, *size],
            "area": size[0] * size[1],
            "category_id": int(class_id),
            "score": float(score),
        }


def _masks(found: Detections) -> Iterator[Entry]:
    assert isinstance(found, Segments)  # noqa: S101 - of the task
    for entry, mask in zip(_entries(found), found.masks, strict=True):
        yield entry | {"segmentation": mask.rle(), "area": int(mask.counts[1::2].sum())}


def _keypoints(found: Detections) -> Iterator[Entry]:
    assert isinstance(found, Poses)  # noqa: S101 - as above
    for entry, points in zip(_entries(found), found.keypoints.astype(float), strict=True):
        shown = points[:, 2] >= _VISIBLE
        flat = np.column_stack([points[:, :2], np.where(shown, 2, 0)]).ravel().tolist()
        yield entry | {"keypoints": flat, "num_keypoints": int(shown.sum()), "area": entry["area"] * _BODY}


def _rotated(found: Detections) -> Rotated:
    assert isinstance(found, OrientedBoxes)  # noqa: S101 - as above
    return Rotated(found.rotated_boxes.astype(np.float64), found.scores, found.class_ids)


_READERS: Mapping[str, tuple[Callable[[Detections], Iterator[Entry]], Any]] = {
    "detect": (_entries, "bbox"),
    "segment": (_masks, "segm"),
    "pose": (_keypoints, "keypoints"),
}
