"""What every task that finds objects shares: detections, their JSON and tensors, and the letterbox before the model.

Segmentation, pose and oriented boxes add to it what their objects have beside a box.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from transformer.imaging.drawing import Label, draw_boxes
from transformer.imaging.letterbox import Image, Letterbox, fit, letterbox, stretch
from transformer.imaging.nms import Floats
from transformer.tasks.candidates import Ids, is_fused, is_stretched
from transformer.tasks.detection_options import SELECTION_PARAMETERS, Selection
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.pixels import to_input
from transformer.tasks.schemas import CLASS, INTEGER, NUMBER, UUID, array_of, object_of
from transformer.tasks.task import Array, ImagePrediction, ImageTask, Parameter, Schema, Write, largest_difference
from transformer.triton.model import Model, TensorMetadata

Objects = TypeVar("Objects", bound="Detections")

OBJECT_PROPERTIES: Schema = (
    {"x": NUMBER, "y": NUMBER, "width": NUMBER, "height": NUMBER}
    | CLASS
    | {"detection_id": UUID, "box": object_of(dict.fromkeys(("x1", "y1", "x2", "y2"), NUMBER), title="Box")}
)
LIMITS_REACHED: Schema = {
    "title": "LimitsReached",
    "type": "object",
    "description": "where something may be missing: the limit that left it out, and how many it lets pass",
    "properties": dict.fromkeys(("max_detections", "nms_candidates", "model_candidates"), INTEGER),
    "additionalProperties": False,
}
NO_CLASS = -1  # pads class_ids; 0 is a class
_DETECTION_JSON_BYTES = 330
_TOLERANCES: Mapping[str, float] = {"boxes_px": 1.0, "scores": 1e-3}


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

    # Names of what `compare` returns.
    figures: ClassVar[tuple[str, ...]] = ("boxes_px", "scores")

    @property
    def objects(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def places(self) -> Floats:
        """`(N, numbers)`, in pixels: by these `match` finds the nearest one."""
        return self.boxes_xyxy

    @property
    def object_boxes(self) -> Floats:
        """Where they are."""
        return self.boxes_xyxy

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
    def to_tensors(cls, predictions: Sequence[Self], model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        """Padded to the image with most detections."""
        return {
            "num_detections": lambda: np.array([len(each.scores) for each in predictions], np.int32),
            "boxes": partial(pad_rows, [each.boxes_xyxy for each in predictions], np.float32, (4,)),
            "scores": partial(pad_rows, [each.scores for each in predictions], np.float32),
            "class_ids": partial(pad_rows, [each.class_ids for each in predictions], np.int32, (), NO_CLASS),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Each box with its class and score."""
        return draw_boxes(image_hwc, self.boxes_xyxy, self.labels(model))

    def labels(self, model: Model) -> list[Label]:
        """What is written beside each object."""
        return [
            Label(class_name(model, int(class_id)), class_id=int(class_id), score=float(score))
            for class_id, score in zip(self.class_ids, self.scores, strict=True)
        ]

    def compare(self, expected: Self) -> Mapping[str, float]:
        """Distances of each detection from the nearest one of its class on the other side, in both directions."""
        pairs = [*match(self, expected), *((one, other) for other, one in match(expected, self))]
        if any(None in pair for pair in pairs):
            return dict.fromkeys(self.figures, float("inf"))
        ones, others = np.array(pairs, np.int64).reshape(-1, 2).T
        return self.compare_pairs(expected, ones, others)

    def compare_pairs(self, expected: Self, ones: Ids, others: Ids) -> Mapping[str, float]:
        """The largest differences of pairs of detections: `ones` are indices of this side, `others` of the other."""
        return {
            "boxes_px": largest_difference(self.boxes_xyxy[ones], expected.boxes_xyxy[others]),
            "scores": largest_difference(self.scores[ones], expected.scores[others]),
        }


def match(ones: Detections, others: Detections) -> list[tuple[int, int | None]]:
    """For each detection its index and that of the nearest one of its class on the other side; None without one.

    Boxes may be equal and their masks or keypoints not: nearest is by box and score, in units of their tolerances.
    """
    pairs: list[tuple[int, int | None]] = []
    places = others.places
    for index, (place, class_id) in enumerate(zip(ones.places, ones.class_ids, strict=True)):
        (same,) = np.nonzero(others.class_ids == class_id)
        distances = np.abs(places[same] - place).max(axis=1, initial=0) / _TOLERANCES["boxes_px"]
        distances += np.abs(others.scores[same] - ones.scores[index]) / _TOLERANCES["scores"]
        pairs.append((index, int(same[distances.argmin()]) if len(same) else None))
    return pairs


def pad_rows(rows: Sequence[Array], dtype: Any, tail: tuple[int, ...] = (), fill: Any = 0) -> Array:
    """Rows of each image, `(n, *tail)`, in one array `(images, most, *tail)`; the rest of it is `fill`."""
    table = np.full((len(rows), max(map(len, rows)), *tail), fill, dtype)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


class FindObjects(ImageTask[Letterbox, Selection, Objects], Generic[Objects]):
    """A task that finds objects: an image is letterboxed into the model's input."""

    parameters: ClassVar[tuple[Parameter, ...]] = SELECTION_PARAMETERS
    options = Selection
    json_output = "detections"
    schema: ClassVar[Schema] = {
        "predictions": array_of(object_of(OBJECT_PROPERTIES, title="Detection")),
        "limits_reached": LIMITS_REACHED,
    }
    tolerances: ClassVar[Mapping[str, float]] = _TOLERANCES

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
        return to_input(letterbox(image_hwc, plan), model), plan


def place(image_wh: tuple[int, int], model: Model) -> Letterbox:
    """How an image lies in the model's input.

    A model with free height and width gets the smallest rectangle that is a multiple of its stride, any other its
    fixed size; one that takes stretched images gets its whole size filled.

    Args:
        image_wh: size of the image.
        model: for size, stride and interface.
    """
    height, width = model.input.dims[:2] if is_fused(model) else model.input.dims[1:]
    if is_stretched(model) and model.input_wh is not None:
        return stretch(image_wh, model.input_wh)
    if height > 0 and width > 0:
        return fit(image_wh, (width, height), stride=None)
    assert model.input_wh is not None, "describe() rejects a detector without imgsz"  # noqa: S101
    return fit(image_wh, model.input_wh, stride=model.stride)
