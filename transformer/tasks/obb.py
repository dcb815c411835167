"""Oriented boxes: an image in, rotated boxes out.

The angle of each candidate, in radians, is `angles` `(N,)` of the `fused` interface, or its last value in `output0`;
centre and size are those of the rotated box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.crops import cut_rotated
from transformer.imaging.drawing import draw_rotated_boxes
from transformer.imaging.letterbox import Image, Letterbox, unletterbox_rotated
from transformer.imaging.nms import Floats
from transformer.imaging.rotated_boxes import enclose, rotated_nms, to_canonical, to_corners
from transformer.tasks.candidates import Candidates, Ids, read_candidates, select
from transformer.tasks.detection_options import Selection
from transformer.tasks.objects import LIMITS_REACHED, OBJECT_PROPERTIES, Detections, FindObjects, pad_rows
from transformer.tasks.schemas import NUMBER, array_of, object_of
from transformer.tasks.task import Array, Schema, Write, largest_difference, register
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

_ROTATED_JSON_BYTES = 270
_ROTATED = ("x", "y", "width", "height", "rotation")


@dataclass(frozen=True)
class OrientedBoxes(Detections):
    """The rotated boxes of an image, best first; `boxes_xyxy` are the upright boxes around them.

    Attributes:
        rotated_boxes: `(N, 5)`: centre, width and height in pixels of the original image, not clipped to it, and the
            angle in radians as the model gave it.
    """

    rotated_boxes: Floats = field(kw_only=True)

    figures: ClassVar[tuple[str, ...]] = ("boxes_px", "scores", "corners_px", "rotation")

    @classmethod
    def within(cls, image_wh: tuple[int, int], rotated_boxes: Floats, **detected: Any) -> "OrientedBoxes":
        """With the upright boxes around rotated ones, clipped to the image."""
        return cls(enclose(to_corners(rotated_boxes), image_wh), rotated_boxes=rotated_boxes, **detected)

    @cached_property
    def corners(self) -> Floats:
        """`(N, 4, 2)`, pixels of the original image, which they may leave; in the order of `to_corners`."""
        return to_corners(self.rotated_boxes)

    @property
    def places(self) -> Floats:
        """How far each box reaches along both axes and both diagonals, whichever corner is first.

        Two boxes of opposite angles have the same upright box.
        """
        x, y = self.corners[..., 0], self.corners[..., 1]
        along = np.stack([x, y, (x + y) / 2, (x - y) / 2], axis=1)
        return np.concatenate([along.min(axis=2), along.max(axis=2)], axis=1)

    def crop(self, image_hwc: Image, index: int) -> Image:
        """The rotated box, turned upright."""
        return cut_rotated(image_hwc, self.rotated_boxes[index])

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of detections."""
        return super().json_bytes + _ROTATED_JSON_BYTES * len(self.scores)

    def to_json(self, model: Model) -> dict[str, Any]:
        """Detections by their upright boxes, each with `rotated_box` and its `corners`."""
        document = super().to_json(model)
        boxes = to_canonical(self.rotated_boxes).astype(float).tolist()
        corners = self.corners.astype(float).tolist()
        for prediction, box, points in zip(document["predictions"], boxes, corners, strict=True):
            lengths = [round(value, 3) for value in box[:4]]
            prediction["rotated_box"] = dict(zip(_ROTATED, [*lengths, round(box[4], 6)], strict=True))
            prediction["corners"] = [{"x": round(x, 3), "y": round(y, 3)} for x, y in points]
        return document

    @classmethod
    def to_tensors(cls, predictions: "Sequence[OrientedBoxes]", model: Model) -> Mapping[str, Write]:
        """Those of detections, and the rotated boxes."""
        rotated = [each.rotated_boxes for each in predictions]
        return {
            **super().to_tensors(predictions, model),
            "rotated_boxes": lambda: pad_rows([to_canonical(boxes) for boxes in rotated], np.float32, (5,)),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Each rotated box with its class and score."""
        return draw_rotated_boxes(image_hwc, self.corners, self.labels(model))

    def compare_pairs(self, expected: "OrientedBoxes", ones: Ids, others: Ids) -> Mapping[str, float]:
        """As detections, with corners, whichever is first, and the angle of the sides, whichever is the width."""
        mine, theirs = self.corners[ones], expected.corners[others]
        turned = [np.abs(mine - np.roll(theirs, turns, axis=1)).max(axis=(1, 2), initial=0) for turns in range(4)]
        quarter = np.pi / 2
        angle = np.mod(self.rotated_boxes[ones, 4] - expected.rotated_boxes[others, 4].astype(np.float64), quarter)
        return {
            **super().compare_pairs(expected, ones, others),
            "corners_px": float(np.min(turned, axis=0).max(initial=0)),
            "rotation": largest_difference(np.minimum(angle, quarter - angle), np.zeros_like(angle)),
        }


class OrientedBoxFinder(FindObjects[OrientedBoxes]):
    """Images to rotated boxes."""

    name = "obb"
    schema_name = "OrientedBoxes"
    schema: ClassVar[Schema] = {
        "predictions": array_of(
            object_of(
                {
                    **OBJECT_PROPERTIES,
                    "rotated_box": object_of(dict.fromkeys(_ROTATED, NUMBER), title="RotatedBox"),
                    "corners": array_of(object_of({"x": NUMBER, "y": NUMBER}, title="Corner"))
                    | {"minItems": 4, "maxItems": 4},
                },
                title="OrientedBox",
            )
        ),
        "limits_reached": LIMITS_REACHED,
    }
    tolerances: ClassVar[Mapping[str, float]] = {**FindObjects.tolerances, "corners_px": 1.0, "rotation": 0.01}

    def check(self, model: Model) -> None:
        """Named classes: the angle follows their scores."""
        super().check(model)
        if not model.names:
            raise ModelConfigError(f"{model.name}: names is missing in parameters.metadata: boxes have classes")

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """As of detections, and the rotated boxes."""
        return [*super().outputs(model), TensorMetadata("rotated_boxes", "FP32", (-1, -1, 5))]

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Selection
    ) -> OrientedBoxes:
        """Select among the model's candidates and map them to the image."""
        candidates = read_candidates(outputs, model, above=options.confidence, rest="angles", rotated=True)
        objects, reached = select(candidates, model, options, suppress=_suppress)
        return OrientedBoxes.within(
            plan.image_wh,
            unletterbox_rotated(_rotated(objects), plan),
            scores=objects.scores,
            class_ids=objects.class_ids,
            limits_reached=reached,
        )


def _suppress(candidates: Candidates, iou: float, max_detections: int) -> NDArray[np.int64]:
    boxes, scores = _rotated(candidates), candidates.scores
    return rotated_nms(boxes, scores, class_ids=candidates.class_ids, iou=iou, max_detections=max_detections)


def _rotated(candidates: Candidates) -> Floats:
    """`(N, 5)`: centre, size and angle.

    Raises:
        PredictorError: there is not one angle for each candidate.
    """
    angles = candidates.rest["angles"]
    if angles.shape[1:] not in {(), (1,)}:
        raise PredictorError(
            f"got angles {angles.shape[1:]} of a box, expected one number after the scores of its classes"
        )
    return np.concatenate([candidates.boxes, angles.reshape(-1, 1)], axis=1)


OBB = register(OrientedBoxFinder())
