"""Detection: an image in, boxes out.

Two interfaces, distinguished by the model's input: `fused` takes `image` UINT8 height x width x channel and returns
candidates with their best class; `ultralytics` takes `images` FP32 channel x height x width in 0 to 1 and returns the
bare head.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import Label, draw_boxes
from transformer.imaging.letterbox import Image, Letterbox, fit, letterbox, unletterbox
from transformer.imaging.nms import Floats, cxcywh_to_xyxy, nms, order_by_score
from transformer.tasks.detection_options import SELECTION_PARAMETERS, Selection
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.schemas import CLASS, INTEGER, NUMBER, UUID, array_of, object_of
from transformer.tasks.task import Array, ImagePrediction, ImageTask, Schema, Write, register
from transformer.triton.model import Model, TensorMetadata

Ids = NDArray[np.int64]

MAX_NMS_CANDIDATES = 30_000  # Ultralytics' `max_nms`: limits the time of NMS
_NO_CLASS = -1  # pads class_ids; 0 is a class
_DETECTION_JSON_BYTES = 330


@dataclass(frozen=True)
class Detections(ImagePrediction):
    """The objects of an image, best first.

    Attributes:
        boxes_xyxy: `(N, 4)`, pixels of the original image, clipped to it.
        scores: `(N,)`, in 0 to 1.
        class_ids: `(N,)`.
        limits_reached: where something may be missing, the limit that left it out and how many that lets pass:
            `max_detections` of the request, `nms_candidates` of this server, `model_candidates` of the model's graph.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ids
    limits_reached: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of detections."""
        return _DETECTION_JSON_BYTES * len(self.scores)

    def to_json(self, model: Model) -> dict[str, Any]:
        """Boxes by centre and size as Roboflow has them, and by their corners."""
        boxes = zip(self.boxes_xyxy.astype(float).tolist(), self.scores, self.class_ids, strict=True)
        predictions = [
            {
                "x": round((x1 + x2) / 2, 3),
                "y": round((y1 + y2) / 2, 3),
                "width": round(x2 - x1, 3),
                "height": round(y2 - y1, 3),
                "confidence": round_score(score),
                "class": class_name(model, int(class_id)),
                "class_id": int(class_id),
                "detection_id": str(uuid.uuid4()),
                "box": {"x1": round(x1, 3), "y1": round(y1, 3), "x2": round(x2, 3), "y2": round(y2, 3)},
            }
            for (x1, y1, x2, y2), score, class_id in boxes
        ]
        return {"predictions": predictions, "limits_reached": dict(self.limits_reached)}

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Detections]", model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        """Padded to the image with most detections."""
        longest = max(len(prediction.scores) for prediction in predictions)

        def pad(rows: Sequence[Array], dtype: Any, tail: tuple[int, ...] = (), fill: int = 0) -> Array:
            table = np.full((len(rows), longest, *tail), fill, dtype)
            for index, row in enumerate(rows):
                table[index, : len(row)] = row
            return table

        return {
            "num_detections": lambda: np.array([len(each.scores) for each in predictions], np.int32),
            "boxes": partial(pad, [each.boxes_xyxy for each in predictions], np.float32, (4,)),
            "scores": partial(pad, [each.scores for each in predictions], np.float32),
            "class_ids": partial(pad, [each.class_ids for each in predictions], np.int32, (), _NO_CLASS),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Each box with its class and score."""
        labels = [
            Label(class_name(model, int(class_id)), class_id=int(class_id), score=float(score))
            for class_id, score in zip(self.class_ids, self.scores, strict=True)
        ]
        return draw_boxes(image_hwc, self.boxes_xyxy, labels)

    def compare(self, expected: "Detections") -> Mapping[str, float]:
        """Distances of each detection from the nearest one of its class on the other side, in both directions."""
        pairs = [*_nearest(self, expected), *_nearest(expected, self)]
        return {
            "boxes_px": max((distance_px for distance_px, _ in pairs), default=0.0),
            "scores": max((difference for _, difference in pairs), default=0.0),
        }


def _nearest(ones: Detections, others: Detections) -> list[tuple[float, float]]:
    """For each detection: distance in pixels from the nearest one of its class, and the difference of their scores."""
    pairs = []
    for box, score, class_id in zip(ones.boxes_xyxy, ones.scores, ones.class_ids, strict=True):
        same = others.class_ids == class_id
        distances_px = np.abs(others.boxes_xyxy[same] - box).max(axis=1, initial=0)
        if not len(distances_px):
            return [(float("inf"), float("inf"))]
        nearest = int(distances_px.argmin())
        pairs.append((float(distances_px[nearest]), float(abs(others.scores[same][nearest] - score))))
    return pairs


class Detect(ImageTask[Letterbox, Selection, Detections]):
    """Images to boxes."""

    name = "detect"
    parameters = SELECTION_PARAMETERS
    options = Selection
    json_output = "detections"
    schema_name = "Detections"
    schema: ClassVar[Schema] = {
        "predictions": array_of(
            object_of(
                {"x": NUMBER, "y": NUMBER, "width": NUMBER, "height": NUMBER}
                | CLASS
                | {"detection_id": UUID, "box": object_of(dict.fromkeys(("x1", "y1", "x2", "y2"), NUMBER))}
            )
        ),
        "limits_reached": {
            "type": "object",
            "description": "where something may be missing: the limit that left it out, and how many it lets pass",
            "properties": dict.fromkeys(("max_detections", "nms_candidates", "model_candidates"), INTEGER),
            "additionalProperties": False,
        },
    }
    tolerances: ClassVar[Mapping[str, float]] = {"boxes_px": 1.0, "scores": 1e-3}

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:  # noqa: ARG002
        """JSON, and the detections padded to the image with most of them."""
        return [
            TensorMetadata(self.json_output, "BYTES", (-1,)),
            TensorMetadata("num_detections", "INT32", (-1,)),
            TensorMetadata("boxes", "FP32", (-1, -1, 4)),
            TensorMetadata("scores", "FP32", (-1, -1)),
            TensorMetadata("class_ids", "INT32", (-1, -1)),
        ]

    def smallest_wh(self, image_wh: tuple[int, int], model: Model) -> tuple[int, int] | None:
        """The size that the letterbox scales it to, where the profile allows that boxes change a little."""
        return place(image_wh, model).resized_wh if model.reduces_images else None

    def preprocess(
        self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int] | None = None
    ) -> tuple[Array, Letterbox]:
        """Letterbox an image into the model's input."""
        plan = place(size_wh or (image_hwc.shape[1], image_hwc.shape[0]), model)
        boxed = letterbox(image_hwc, plan)
        if _is_fused(model):
            return boxed, plan
        return np.ascontiguousarray(boxed.transpose(2, 0, 1)).astype(np.float32) / np.float32(255), plan

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Selection
    ) -> Detections:
        """Select among the model's candidates and map them to the image.

        The selection is that of Ultralytics (`utils.nms.non_max_suppression`, best class of each box).
        """
        boxes_xyxy, scores, class_ids, count = _candidates(outputs, model, above=options.confidence)
        reached: dict[str, int] = {}
        # Candidates that a graph leaves out have lower scores than all that it returns.
        if 0 < len(scores) == count and not _returns_all(model):
            reached["model_candidates"] = count
        if options.class_ids is not None:
            wanted = np.isin(class_ids, list(options.class_ids))
            boxes_xyxy, scores, class_ids = boxes_xyxy[wanted], scores[wanted], class_ids[wanted]
        # One more than the limit shows whether there are more.
        most = options.max_detections + 1
        if model.end2end:
            kept = order_by_score(scores)[:most]
        else:
            if len(scores) > MAX_NMS_CANDIDATES:
                reached["nms_candidates"] = MAX_NMS_CANDIDATES
                best = order_by_score(scores)[:MAX_NMS_CANDIDATES]
                boxes_xyxy, scores, class_ids = boxes_xyxy[best], scores[best], class_ids[best]
            kept = nms(boxes_xyxy, scores, class_ids=class_ids, iou=options.iou, max_detections=most)
        if len(kept) == most:
            reached["max_detections"] = options.max_detections
            kept = kept[:-1]
        return Detections(unletterbox(boxes_xyxy[kept], plan), scores[kept], class_ids[kept], reached)


def place(image_wh: tuple[int, int], model: Model) -> Letterbox:
    """How an image lies in the model's input.

    A model with free height and width gets the smallest rectangle that is a multiple of its stride, any other its
    fixed size.

    Args:
        image_wh: size of the image.
        model: for size, stride and interface.
    """
    height, width = model.input.dims[:2] if _is_fused(model) else model.input.dims[1:]
    if height > 0 and width > 0:
        return fit(image_wh, (width, height), stride=None)
    assert model.input_wh is not None, "describe() rejects a detector without imgsz"  # noqa: S101
    return fit(image_wh, model.input_wh, stride=model.stride)


def _is_fused(model: Model) -> bool:
    return model.input.datatype == "UINT8"


def _returns_all(model: Model) -> bool:
    """Whether a model's outputs hold all candidates of its head: a bare head does, one without NMS never."""
    return not model.end2end and (model.all_candidates or not _is_fused(model))


def _candidates(outputs: Mapping[str, Array], model: Model, *, above: float) -> tuple[Floats, Floats, Ids, int]:
    """Candidates with a higher score, and how many candidates there are in all.

    Returns:
        Boxes `(N, 4)` xyxy in model pixels, scores `(N,)`, class ids `(N,)`, the number of all candidates.
    """
    if {"boxes", "scores", "classes"} <= outputs.keys():
        scores = outputs["scores"].astype(np.float32, copy=False)
        (high,) = np.nonzero(scores > above)
        boxes_xyxy = cxcywh_to_xyxy(outputs["boxes"][high].astype(np.float32, copy=False))
        return boxes_xyxy, scores[high], outputs["classes"][high].astype(np.int64), len(scores)
    head = outputs.get("output0")
    if head is None or head.ndim != 2:
        shapes = {name: output.shape for name, output in outputs.items()}
        raise PredictorError(f"{model.name}: got outputs {shapes}, expected boxes, scores and classes, or output0")
    head = head.astype(np.float32, copy=False)
    if model.end2end:  # (300, 6): xyxy, score, class
        rows = head[head[:, 4] > above]
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), len(head)
    scores = head[4:].max(axis=0)  # of (classes, N)
    (high,) = np.nonzero(scores > above)
    columns = head[:, high]
    return cxcywh_to_xyxy(columns[:4].T), scores[high], columns[4:].argmax(axis=0), head.shape[1]


DETECT = register(Detect())
