"""Segmentation: an image in, boxes and a mask for each out.

Beside what detection has, a `fused` graph returns `coefficients`, `(N, M)`, and `prototypes`, `(M, height, width)` in a
quarter of the input's size; a graph of the `ultralytics` interface has the coefficients as further columns of `output0`
and the prototypes as `output1`. Masks are those of Ultralytics with `retina_masks=True`, see `imaging.masks`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import draw_masks
from transformer.imaging.letterbox import Image, Letterbox, unletterbox
from transformer.imaging.masks import INPUT_PER_PROTOTYPE_PX, Mask, MaskSampler, Points, mask_iou
from transformer.tasks.candidates import Candidates, Ids, is_fused, read_candidates, select
from transformer.tasks.detection_options import SELECTION_PARAMETERS, Selection
from transformer.tasks.objects import LIMITS_REACHED, OBJECT_PROPERTIES, Detections, FindObjects, pad_rows
from transformer.tasks.parameter_values import read_choice
from transformer.tasks.schemas import INTEGER, STRING, array_of, object_of
from transformer.tasks.task import Array, Parameter, Schema, Write, register
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

MaskForm = Literal["polygon", "rle", "none"]
MASK_FORMS: tuple[MaskForm, ...] = ("polygon", "rle", "none")

# Limits the time of an image to about two seconds: the boxes of all of its objects, in its own pixels. A run of RLE and
# a point of an outline count as many pixels, so that they limit the memory of frayed masks too.
MAX_MASK_PIXELS = 400_000_000
_PIXELS_PER_POINT = 64

_POINT_JSON_BYTES, _RUN_JSON_BYTES = 22, 3
_POINTS: dict[str, Any] = array_of(object_of({"x": INTEGER, "y": INTEGER}, title="OutlinePoint")) | {"minItems": 3}
_RLE: dict[str, Any] = object_of(
    {"size": array_of(INTEGER) | {"minItems": 2, "maxItems": 2}, "counts": STRING}, title="RunLengths"
) | {"description": "the mask in COCO's compressed RLE: `size` is height and width of the image"}
_MASK: Schema = {
    "mask_format": {"enum": ["polygon", "rle"]},
    "points": _POINTS | {"description": "outline of the largest part; holes are filled"},
    "parts": array_of(_POINTS) | {"description": "outlines of all parts, the largest first, where there are several"},
    "rle": _RLE,
}


@dataclass(frozen=True)
class SegmentOptions(Selection):
    """Which detections a client wants, and how their masks are written."""

    mask: MaskForm = "polygon"


@dataclass(frozen=True)
class Segments(Detections):
    """The objects of an image with their masks, best first.

    Attributes:
        masks: one for each object; none where the form is `none`.
        mask_form: how JSON has them.
    """

    masks: Sequence[Mask] = field(kw_only=True)
    mask_form: MaskForm = field(kw_only=True, default="polygon")

    figures: ClassVar[tuple[str, ...]] = (*Detections.figures, "mask_iou")

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of detections, points and runs."""
        masks = sum(_POINT_JSON_BYTES * mask.points + _RUN_JSON_BYTES * len(mask.counts) for mask in self.masks)
        return super().json_bytes + masks

    def to_json(self, model: Model) -> dict[str, Any]:
        """As detections, each with its mask."""
        document = super().to_json(model)
        for prediction, mask in zip(document["predictions"], self.masks, strict=self.mask_form != "none"):
            prediction.update(_write_rle(mask) if self.mask_form == "rle" else _write_polygon(mask))
        return document

    @classmethod
    def to_tensors(cls, predictions: Sequence[Self], model: Model) -> Mapping[str, Write]:
        """As detections, with the RLE of each mask as JSON; padded with empty elements."""
        masks = partial(_write_masks, [each.masks for each in predictions], [each.objects for each in predictions])
        return {**super().to_tensors(predictions, model), "masks": masks}

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Each mask, filled and outlined, with its class and score; boxes where there are no masks."""
        if self.mask_form == "none":
            return super().draw(image_hwc, model)
        return draw_masks(image_hwc, self.masks, self.boxes_xyxy, self.labels(model))

    def compare_pairs(self, expected: Self, ones: Ids, others: Ids) -> Mapping[str, float]:
        """As detections, and how much of the worst mask is not shared: 1 - IoU."""
        figures = super().compare_pairs(expected, ones, others)
        if (self.mask_form == "none") != (expected.mask_form == "none"):
            return {**figures, "mask_iou": float("inf")}
        if self.mask_form == "none":
            return {**figures, "mask_iou": 0.0}
        ious = mask_iou([self.masks[index] for index in ones], [expected.masks[index] for index in others])
        return {**figures, "mask_iou": float(1 - ious.min(initial=1))}


def _write_rle(mask: Mask) -> dict[str, Any]:
    return {"mask_format": "rle", "rle": mask.rle()}


def _write_polygon(mask: Mask) -> dict[str, Any]:
    parts = list(map(_write_points, mask.outlines))
    several = {"parts": parts} if len(parts) > 1 else {}
    return {"mask_format": "polygon", "points": parts[0], **several}


def _write_points(points: Points) -> orjson.Fragment:
    """`[{"x": 1, "y": 2}, ...]`: the text at once, since the objects of a million points would take a gigabyte."""
    pairs = orjson.dumps(np.ascontiguousarray(points), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].replace(b"],[", b";")
    return orjson.Fragment(b'[{"x":' + pairs.replace(b",", b',"y":').replace(b";", b'},{"x":') + b"}]")


def _write_masks(masks: Sequence[Sequence[Mask]], objects: Sequence[int]) -> Array:
    """`(images, most)`, bytes; empty where an object has no mask."""
    rows = [np.full(count, b"", np.object_) for count in objects]
    for row, of_image in zip(rows, masks, strict=True):
        row[: len(of_image)] = [orjson.dumps(mask.rle()) for mask in of_image]
    return pad_rows(rows, np.object_, fill=b"")


class Segment(FindObjects[Segments]):
    """Images to boxes with masks."""

    name = "segment"
    parameters = (
        *SELECTION_PARAMETERS,
        Parameter(
            "mask",
            lambda value, _: read_choice("mask", value, MASK_FORMS),
            {"type": "string", "enum": list(MASK_FORMS), "default": SegmentOptions.mask},
            "how masks are written: outlines, COCO's RLE, or none, which costs nothing",
        ),
    )
    options = SegmentOptions
    schema_name = "Segments"
    schema: ClassVar[Schema] = {
        "predictions": array_of(object_of({**OBJECT_PROPERTIES, **_MASK}, optional=tuple(_MASK), title="Segment")),
        "limits_reached": {
            **LIMITS_REACHED,
            "title": "MaskLimitsReached",
            "properties": {**LIMITS_REACHED["properties"], "mask_pixels": INTEGER},
        },
    }
    tolerances: ClassVar[Mapping[str, float]] = {**FindObjects.tolerances, "mask_iou": 0.01}

    def check(self, model: Model) -> None:
        """As every task that finds objects, and the model gives prototypes."""
        super().check(model)
        names = {output.name for output in model.outputs}
        expected = {"coefficients", "prototypes"} if is_fused(model) else {"output0", "output1"}
        if not expected <= names:
            raise ModelConfigError(
                f"{model.name}: got outputs {', '.join(sorted(names))}, expected {' and '.join(sorted(expected))} too"
            )

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """As detection, and masks."""
        return [*super().outputs(model), TensorMetadata("masks", "BYTES", (-1, -1))]

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Selection
    ) -> Segments:
        """Select among the model's candidates, map them to the image and make their masks."""
        assert isinstance(options, SegmentOptions), "of `read_options`"  # noqa: S101
        candidates = read_candidates(outputs, model, above=options.confidence, rest="coefficients")
        objects, reached = select(candidates, model, options)
        boxes = unletterbox(objects.boxes, plan)
        kept: NDArray[np.int64] = np.arange(len(boxes))
        masks: list[Mask] = []
        if options.mask != "none":
            sampler = MaskSampler(_prototypes(outputs, objects, model, plan), plan)
            outlines = options.mask == "polygon"
            kept, masks, is_cut = _make_masks(sampler, objects.rest["coefficients"], boxes, outlines=outlines)
            reached |= {"mask_pixels": MAX_MASK_PIXELS} if is_cut else {}
        return Segments(
            boxes[kept], objects.scores[kept], objects.class_ids[kept], reached, masks=masks, mask_form=options.mask
        )


def _prototypes(outputs: Mapping[str, Array], objects: Candidates, model: Model, plan: Letterbox) -> Array:
    """`(M, height, width)`.

    Raises:
        PredictorError: they fit neither the coefficients nor the input, or the input is too small for any.
    """
    prototypes = outputs.get("prototypes", outputs.get("output1"))
    width, height = (side // INPUT_PER_PROTOTYPE_PX for side in plan.input_wh)
    expected = (objects.rest["coefficients"].shape[1], height, width)
    if prototypes is None or prototypes.shape != expected or 0 in expected:
        got = None if prototypes is None else prototypes.shape
        raise PredictorError(f"{model.name}: got prototypes {got}, expected {expected}")
    return prototypes


def _make_masks(
    sampler: MaskSampler, coefficients: Array, boxes_xyxy: Array, *, outlines: bool
) -> tuple[NDArray[np.int64], list[Mask], bool]:
    """Masks of the best objects that `MAX_MASK_PIXELS` lets pass.

    Returns:
        Indices of the objects that have a mask (those whose mask is empty go, as in Ultralytics), their masks, and
        whether weaker objects were left out.
    """
    kept: list[int] = []
    masks: list[Mask] = []
    pixels = 0
    for index, (row, box) in enumerate(zip(coefficients, boxes_xyxy, strict=True)):
        pixels += sampler.area(box)
        if index and pixels > MAX_MASK_PIXELS:
            return np.array(kept, np.int64), masks, True
        if mask := sampler.mask(row, box, outlines=outlines):
            kept.append(index)
            masks.append(mask)
            pixels += _PIXELS_PER_POINT * (len(mask.counts) + mask.points)
    return np.array(kept, np.int64), masks, False


SEGMENT = register(Segment())
