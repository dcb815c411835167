"""Semantic segmentation: an image in, the class of each of its pixels out.

The graph returns the best class of each pixel of its input. The padding of the letterbox is cut off, and the rest is
brought to the size of the image as Ultralytics does it (`models.yolo.semantic.predict`): nearest, for classes have no
mean. That happens where a response is written, one image at a time; until then a prediction holds the model's map.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import draw_legend, shade
from transformer.imaging.encoding import encode_grey
from transformer.imaging.letterbox import Image, Letterbox, letterbox
from transformer.imaging.maps import Nearest, cut_padding, stack
from transformer.tasks.detection_options import CLASSES
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.objects import place
from transformer.tasks.parameter_values import read_choice
from transformer.tasks.pixels import to_input
from transformer.tasks.schemas import FRACTION, INTEGER, STRING, array_of, object_of
from transformer.tasks.task import Array, ImagePrediction, ImageTask, Parameter, Schema, Write, register
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

# Values of a pixel of no wanted class: Ultralytics' in 8 bits, and the highest of 16 bits.
_IGNORED: Mapping[Any, int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_CLASS_JSON_BYTES = 80
_FORMATS = ("png", "none")


@dataclass(frozen=True)
class Regions:
    """What a client wants of a class map.

    Attributes:
        class_ids: only these classes; None for all.
        segmentation_mask: `png`, or `none` for no map in JSON.
    """

    class_ids: frozenset[int] | None = None
    segmentation_mask: str = "png"


@dataclass(frozen=True)
class Segmentation(ImagePrediction):
    """The class of each pixel of an image.

    Attributes:
        class_map: UINT8 or UINT16 `(height, width)`, in any size: indices of classes, or of a model of one class 1
            where it is and 0 elsewhere; 255 or 65535 where a pixel has no wanted class.
        image_wh: size of the image.
        values: number of values that a pixel may have: of classes, or two of a model of one class.
        has_mask: whether the map is part of JSON.
    """

    class_map: NDArray[np.uint8] | NDArray[np.uint16]
    image_wh: tuple[int, int]
    values: int
    has_mask: bool = True

    @property
    def ignored(self) -> int:
        """The value of pixels of no wanted class."""
        return _IGNORED[self.class_map.dtype]

    @property
    def whole(self) -> Nearest:
        """The map in the size of the image."""
        return Nearest(self.class_map, self.image_wh)

    @property
    def held_bytes(self) -> int:
        """Size of the model's map."""
        return self.class_map.nbytes

    @property
    def json_bytes(self) -> int:
        """Estimated from the numbers of classes and of pixels, of which a PNG has a byte for eight."""
        width, height = self.image_wh
        return self.values * _CLASS_JSON_BYTES + width * height // 8

    @cached_property
    def ratios(self) -> NDArray[np.float32]:
        """`(values,)`: the share of the image that has each value."""
        return (self.whole.count(self.values) / (self.image_wh[0] * self.image_wh[1])).astype(np.float32)

    def to_json(self, model: Model) -> dict[str, Any]:
        """The share of each class; the map as Roboflow has it: a PNG in base64, and the names of its values."""
        regions = [
            {
                "class": _name(value, model),
                "class_id": _class_id(value, model),
                "pixel_ratio": round_score(self.ratios[value]),
            }
            for value in self._present()
            if _class_id(value, model) is not None
        ]
        return {
            "predictions": regions,
            "segmentation_mask": self._to_png() if self.has_mask else None,
            "class_map": {str(value): _name(value, model) for value in range(self.values)},
            "present_class_ids": self._present(),
            "ignored_value": self.ignored,
        }

    def _present(self) -> list[int]:
        return [int(value) for value in np.flatnonzero(self.ratios)]

    def _to_png(self) -> str:
        whole = stack([self.whole], dtype=self.class_map.dtype, fill=self.ignored)[0]
        return base64.b64encode(encode_grey(whole, otherwise="request segmentation_mask=none")).decode()

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Segmentation]", model: Model) -> Mapping[str, Write]:
        """The maps, padded to the largest image, and the share of each class."""
        values = [value for value in range(predictions[0].values) if _class_id(value, model) is not None]
        first = predictions[0]
        return {
            "class_map": lambda: stack(
                [each.whole for each in predictions], dtype=first.class_map.dtype, fill=first.ignored
            ),
            "pixel_ratios": lambda: np.stack([each.ratios[values] for each in predictions]),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Each class in its colour, and the names of the largest."""
        drawn = image_hwc.copy()
        hidden = [self.ignored, *(value for value in range(self.values) if _class_id(value, model) is None)]
        for rows, values in self.whole.strips():
            shade(drawn[rows], values, shown=~np.isin(values, hidden))
        largest = sorted(set(self._present()) - set(hidden), key=lambda value: -self.ratios[value])
        draw_legend(drawn, [(value, _name(value, model), float(self.ratios[value])) for value in largest])
        return drawn

    def compare(self, expected: "Segmentation") -> Mapping[str, float]:
        """The share of pixels that have another class."""
        if self.image_wh != expected.image_wh:
            return {"pixels_apart": float("inf")}
        strips = zip(self.whole.strips(), expected.whole.strips(), strict=True)
        apart = sum(int(np.count_nonzero(ours != theirs)) for (_, ours), (_, theirs) in strips)
        return {"pixels_apart": apart / (self.image_wh[0] * self.image_wh[1])}


class Semantic(ImageTask[Letterbox, Regions, Segmentation]):
    """Images to class maps."""

    name = "semantic"
    parameters = (
        CLASSES,
        Parameter(
            "segmentation_mask",
            lambda value, _: read_choice("segmentation_mask", value, _FORMATS),
            {"enum": list(_FORMATS), "default": Regions.segmentation_mask},
            "of semantic segmentation: whether JSON holds the class map, as a PNG",
        ),
    )
    options = Regions
    schema_name = "Segmentation"
    schema: ClassVar[Schema] = {
        "predictions": array_of(
            object_of({"class": STRING, "class_id": INTEGER, "pixel_ratio": FRACTION}, title="Region")
        ),
        "segmentation_mask": {
            "type": ["string", "null"],
            "description": "PNG of one channel in base64, of the size of the image",
        },
        "class_map": {"type": "object", "additionalProperties": STRING, "description": "value of a pixel -> class"},
        "present_class_ids": array_of(INTEGER),
        "ignored_value": INTEGER | {"description": "value of a pixel whose class is not among `classes`"},
    }
    metadata_schema: ClassVar[Schema] = {"ignored_value": INTEGER}
    tolerances: ClassVar[Mapping[str, float]] = {"pixels_apart": 1e-3}

    def check(self, model: Model) -> None:
        """As of every image, and no more classes than 16 bits hold beside the value of ignored pixels."""
        super().check(model)
        most = _IGNORED[np.dtype(np.uint16)]
        if not 1 <= model.classes <= most:
            raise ModelConfigError(f"{model.name}: got {model.classes} classes, expected 1 to {most}")

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """JSON, the maps padded to the largest image, the share of each class."""
        return [
            TensorMetadata(self.json_output, "BYTES", (-1,)),
            TensorMetadata("class_map", "UINT8" if map_dtype(model) == np.uint8 else "UINT16", (-1, -1, -1)),
            TensorMetadata("pixel_ratios", "FP32", (-1, model.classes)),
        ]

    def metadata(self, model: Model) -> dict[str, Any]:
        """The value of pixels that have no class."""
        return {"ignored_value": _IGNORED[map_dtype(model)]}

    def smallest_wh(self, image_wh: tuple[int, int], model: Model) -> tuple[int, int] | None:
        """The size that the letterbox scales it to, where the profile allows that results change a little."""
        return place(image_wh, model).resized_wh if model.reduces_images else None

    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, Letterbox]:
        """Letterbox an image into the model's input."""
        plan = place(size_wh, model)
        return to_input(letterbox(image_hwc, plan), model), plan

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Regions
    ) -> Segmentation:
        """Cut off the padding, and the classes that are not wanted.

        Raises:
            PredictorError: the output is no map of the size of the input, or has more classes than the model.
        """
        output = outputs.get("class_map", outputs.get("output0"))
        if output is None or output.shape != plan.input_wh[::-1] or output.dtype.kind not in "ui":
            got = {name: f"{array.dtype} {array.shape}" for name, array in outputs.items()}
            raise PredictorError(f"{model.name}: got {got}, expected class_map of {plan.input_wh[::-1]}")
        seen, values = cut_padding(output, plan.image_wh), count_values(model)
        low, high = int(seen.min()), int(seen.max())
        if low < 0 or high >= values:
            raise PredictorError(f"{model.name}: got classes {low} to {high}, expected 0 to {values - 1}")
        class_map = np.array(seen, map_dtype(model))  # a copy: it outlives the response that it is part of
        if options.class_ids is not None and model.classes > 1:
            class_map[~np.isin(class_map, list(options.class_ids))] = _IGNORED[map_dtype(model)]
        return Segmentation(class_map, plan.image_wh, values, options.segmentation_mask == "png")


def map_dtype(model: Model) -> np.dtype[Any]:
    """Datatype of a map: 8 bits, unless they do not hold the classes and the value of ignored pixels."""
    return np.dtype(np.uint8 if model.classes <= _IGNORED[np.dtype(np.uint8)] else np.uint16)


def count_values(model: Model) -> int:
    """How many values a pixel may have: a model of one class has background beside it."""
    return 2 if model.classes == 1 else model.classes


def _class_id(value: int, model: Model) -> int | None:
    """The class of a value; None of background."""
    return value if model.classes > 1 else (0 if value else None)


def _name(value: int, model: Model) -> str:
    """Name of the class of a value."""
    class_id = _class_id(value, model)
    return "background" if class_id is None else class_name(model, class_id)


SEMANTIC = register(Semantic())
