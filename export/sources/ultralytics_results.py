"""Runs Ultralytics' own `predict`, and reads its results as the predictions of the tasks here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError, first_line
from export.proof.drawn_images import NamedImage
from export.proof.predictions import IOU, MAX_DETECTIONS, Predict
from export.sources.ultralytics_checkpoint import Checkpoint
from transformer.imaging.masks import Mask
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.pose import Poses
from transformer.tasks.segment import Segments
from transformer.triton.model import Model


def predict_objects(checkpoint: Checkpoint, model: Model) -> Predict:
    """Ultralytics' own `predict`, with images letterboxed or stretched as the model is served."""
    yolo, settings, read = checkpoint.load(), checkpoint.settings(model), _READERS[checkpoint.task]
    if checkpoint.task == "segment":
        settings["retina_masks"] = True

    def run(image: NamedImage, confidence: float) -> Detections:
        try:
            (result,) = yolo.predict(
                np.ascontiguousarray(image.image_hwc[..., ::-1]),  # it takes BGR
                conf=confidence,
                iou=IOU,
                max_det=MAX_DETECTIONS,
                agnostic_nms=False,  # which YOLOE's predict has by default, and not for a file that it exported
                **settings,
            )
        except Exception as exc:  # torch, ONNX Runtime and a network's own code may raise anything
            raise ExportError(f"Ultralytics' predict fails on image {image.name}: {first_line(exc)}") from exc
        return read(result)

    return run


def _read_boxes(result: Any) -> Detections:
    return Detections(**_read(result.boxes, result))


def _read_segments(result: Any) -> Segments:
    found = [] if result.masks is None else result.masks.data.numpy().astype(np.uint8)
    return Segments(**_read(result.boxes, result), masks=[_encode(bits) for bits in found], mask_form="rle")


def _read_poses(result: Any) -> Poses:
    points = result.keypoints.data.numpy()
    if points.shape[-1] == 2:  # all are visible
        points = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    return Poses(**_read(result.boxes, result), keypoints=points)


def _read_oriented_boxes(result: Any) -> OrientedBoxes:
    height, width = result.orig_shape
    found = result.obb
    scores, class_ids = found.conf.numpy(), found.cls.numpy().astype(np.int64)
    return OrientedBoxes.within((width, height), found.xywhr.numpy(), scores=scores, class_ids=class_ids)


def _read(found: Any, result: Any) -> dict[str, Any]:
    """Boxes within the image, as they are served: those of RT-DETR reach beyond it in Ultralytics."""
    height, width = result.orig_shape
    boxes = found.xyxy.numpy().clip(0, np.array([width, height, width, height], np.float32))
    return {"boxes_xyxy": boxes, "scores": found.conf.numpy(), "class_ids": found.cls.numpy().astype(np.int64)}


def _encode(bits: NDArray[np.uint8]) -> Mask:
    """A mask `(height, width)` as COCO's runs: down the columns, the first one of 0."""
    flat = bits.T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=np.uint8(0)))
    return Mask(bits.shape[::-1], np.diff(starts, prepend=0, append=flat.size))


_READERS: Mapping[str, Callable[[Any], Detections]] = {
    "detect": _read_boxes,
    "segment": _read_segments,
    "pose": _read_poses,
    "obb": _read_oriented_boxes,
}
