"""A task in one file of its own: which of a few colours each pixel has.

`python -m tests.support.colour_task` is the transformer with this task beside its own.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from transformer.imaging.drawing import COLOURS
from transformer.imaging.letterbox import Image, Letterbox, fit, letterbox
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.parameter_values import read_classes, read_fraction
from transformer.tasks.schemas import FRACTION, INTEGER, STRING, array_of, object_of
from transformer.tasks.task import Array, ImagePrediction, ImageTask, Parameter, Schema, Write, register
from transformer.triton.model import Model, TensorMetadata


@dataclass(frozen=True)
class Regions:
    """Which regions a client wants."""

    class_ids: frozenset[int] | None = None
    min_ratio: float = 0.0


@dataclass(frozen=True)
class Colours(ImagePrediction):
    """The colour of each pixel.

    Attributes:
        class_map: `(height, width)` of the original image.
        ratios: `(classes,)`, the share of each class, 0 of unwanted ones.
    """

    class_map: NDArray[np.uint8]
    ratios: NDArray[np.float32]

    @property
    def json_bytes(self) -> int:
        return 80 * len(self.ratios)

    def to_json(self, model: Model) -> dict[str, Any]:
        regions = [
            {"class": class_name(model, int(index)), "class_id": int(index), "pixel_ratio": round_score(ratio)}
            for index, ratio in enumerate(self.ratios)
            if ratio > 0
        ]
        return {"predictions": regions, "mask_size": list(self.class_map.shape)}

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Colours]", model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        def pad() -> Array:
            height, width = np.max([each.class_map.shape for each in predictions], axis=0)
            maps = np.full((len(predictions), height, width), 255, np.uint8)
            for index, each in enumerate(predictions):
                maps[index, : each.class_map.shape[0], : each.class_map.shape[1]] = each.class_map
            return maps

        return {"pixel_ratios": lambda: np.stack([each.ratios for each in predictions]), "class_map": pad}

    def draw(self, image_hwc: Image, model: Model) -> Image:  # noqa: ARG002
        colours = np.array(COLOURS, np.uint8)[self.class_map % len(COLOURS)]
        return np.asarray(cv2.addWeighted(image_hwc, 0.5, colours, 0.5, 0), np.uint8)

    def compare(self, expected: "Colours") -> Mapping[str, float]:
        return {"pixels_apart": float((self.class_map != expected.class_map).mean())}


class FindColours(ImageTask[Letterbox, Regions, Colours]):
    """Images to maps of colours."""

    name = "colours"
    parameters = (
        Parameter("classes", read_classes, STRING, "names or indices", option="class_ids", repeats=True),
        Parameter("min_ratio", lambda value, _: read_fraction("min_ratio", value), FRACTION, "smallest share"),
    )
    options = Regions
    facts = ("ignored",)
    schema_name = "Colours"
    schema: ClassVar[Schema] = {
        "predictions": array_of(object_of({"class": STRING, "class_id": INTEGER, "pixel_ratio": FRACTION})),
        "mask_size": array_of(INTEGER),
    }
    metadata_schema: ClassVar[Schema] = {"ignored": array_of(INTEGER)}
    tolerances: ClassVar[Mapping[str, float]] = {"pixels_apart": 0.001}

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        return [
            TensorMetadata(self.json_output, "BYTES", (-1,)),
            TensorMetadata("pixel_ratios", "FP32", (-1, model.classes)),
            TensorMetadata("class_map", "UINT8", (-1, -1, -1)),
        ]

    def metadata(self, model: Model) -> dict[str, Any]:
        return {"ignored": list(model.facts.get("ignored", ()))}

    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, Letterbox]:
        assert model.input_wh is not None
        plan = fit(size_wh, model.input_wh, stride=None)
        return letterbox(image_hwc, plan), plan

    def postprocess(self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Regions) -> Colours:
        (x, y), (width, height) = plan.pad_xy, plan.resized_wh
        visible = np.ascontiguousarray(outputs["class_map"][y : y + height, x : x + width])
        class_map = np.asarray(cv2.resize(visible, plan.image_wh, interpolation=cv2.INTER_NEAREST), np.uint8)
        ratios = (np.bincount(class_map.reshape(-1), minlength=model.classes) / class_map.size).astype(np.float32)
        unwanted = set(model.facts.get("ignored", ()))
        if options.class_ids is not None:
            unwanted |= set(range(model.classes)) - options.class_ids
        ratios[list(unwanted)] = 0
        ratios[ratios < options.min_ratio] = 0
        return Colours(class_map, ratios)


COLOURS_TASK = FindColours()

if __name__ == "__main__":
    register(COLOURS_TASK)
    from transformer.program import main

    sys.exit(main())
