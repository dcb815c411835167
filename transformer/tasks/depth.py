"""Monocular depth: an image in, the distance of each of its pixels out, in metres.

The image is stretched to the model's input, and the model's map is brought to the size of the image, both as
Ultralytics does it (`models.yolo.depth.predict`). The latter happens where a response is written, one image at a time;
until then a prediction holds the model's map.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import draw_range, paint
from transformer.imaging.encoding import encode_grey
from transformer.imaging.letterbox import Image, Letterbox, letterbox, stretch
from transformer.imaging.maps import Bilinear, stack
from transformer.tasks.candidates import is_fused
from transformer.tasks.parameter_values import read_choice, read_positive
from transformer.tasks.pixels import to_input
from transformer.tasks.schemas import INTEGER, NUMBER, STRING
from transformer.tasks.task import Array, ImagePrediction, ImageTask, Parameter, Schema, Write, register
from transformer.triton.model import Model, TensorMetadata

_HIGHEST = 65535  # of 16 bits
_FORMATS = ("metric", "normalized", "both", "none")
_MOST_SCALE_M = 1.0
_TINY_M = 1e-3
_PNG: dict[str, Any] = {"type": ["string", "null"]}


@dataclass(frozen=True)
class DepthForm:
    """How a client wants depth in JSON.

    Attributes:
        depth_map: `metric`: a PNG in units of `scale_m`; `normalized`: one from 0, the farthest, to 65535, the nearest;
            `both`; or `none`.
        scale_m: metres of a unit.
    """

    depth_map: str = "metric"
    scale_m: float = 0.001

    @property
    def has_metric(self) -> bool:
        """Whether JSON holds distances."""
        return self.depth_map in {"metric", "both"}

    @property
    def has_normalized(self) -> bool:
        """Whether JSON holds normalised depth."""
        return self.depth_map in {"normalized", "both"}


@dataclass(frozen=True)
class DepthMap(ImagePrediction):
    """The distance of each pixel of an image.

    Attributes:
        depth_m: `(height, width)`, in any size: metres; 0 where there is none.
        image_wh: size of the image.
        range_m: the smallest and the largest distance in the image.
        form: of JSON.
        limits_reached: `depth_map`, the highest value of its PNG, where distances are beyond it.
    """

    depth_m: NDArray[np.float32]
    image_wh: tuple[int, int]
    range_m: tuple[float, float]
    form: DepthForm = DepthForm()
    limits_reached: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> Bilinear:
        """The map in the size of the image."""
        return Bilinear(self.depth_m, self.image_wh)

    @property
    def held_bytes(self) -> int:
        """Size of the model's map."""
        return self.depth_m.nbytes

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of pixels: a PNG has a byte or two for each, and a tensor takes as long."""
        width, height = self.image_wh
        return width * height

    def to_json(self, model: Model) -> dict[str, Any]:  # noqa: ARG002
        """The range in metres, and PNGs in base64: of distances, and of depth as Roboflow and supervision have it."""
        low, high = self.range_m
        return {
            "depth_map": self._to_png(self.to_units) if self.form.has_metric else None,
            "scale": self.form.scale_m,
            "unit": "m",
            "min": round(low, 4),
            "max": round(high, 4),
            "normalized_depth": self._to_png(self.to_nearness) if self.form.has_normalized else None,
            "limits_reached": dict(self.limits_reached),
        }

    def to_units(self, depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Distances in units of the form: at most 65535, and 0 only where there is no depth."""
        rounded = np.clip(np.rint(depth_m / np.float32(self.form.scale_m)), 1, _HIGHEST)
        units: NDArray[np.uint16] = np.where(depth_m > 0, rounded, 0).astype(np.uint16)
        return units

    def to_nearness(self, depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
        """From 0, the farthest pixel of the image, to 65535, the nearest."""
        low, high = self.range_m
        shares = (np.float32(high) - depth_m) / np.float32(max(high - low, _TINY_M))
        nearness: NDArray[np.uint16] = np.rint(np.clip(shares, 0, 1) * _HIGHEST).astype(np.uint16)
        return nearness

    def _to_png(self, convert: Callable[[NDArray[np.float32]], NDArray[np.uint16]]) -> str:
        width, height = self.image_wh
        values = np.empty((height, width), np.uint16)
        for rows, depth_m in self.whole.strips():
            values[rows] = convert(depth_m)
        return base64.b64encode(encode_grey(values, otherwise="request depth_map=none")).decode()

    @classmethod
    def to_tensors(cls, predictions: "Sequence[DepthMap]", model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        """Metres, padded to the largest image."""
        return {
            "depth": lambda: stack([each.whole for each in predictions], dtype=np.float32, fill=0),
            "depth_range": lambda: np.array([each.range_m for each in predictions], np.float32),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:  # noqa: ARG002
        """The nearest pixel red, the farthest blue, and the distances of both."""
        drawn = np.empty_like(image_hwc)
        for rows, depth_m in self.whole.strips():
            drawn[rows] = paint((self.to_nearness(depth_m) >> 8).astype(np.uint8))
        low, high = self.range_m
        draw_range(drawn, (f"{low:.2f} m", f"{high:.2f} m"))
        return drawn

    def compare(self, expected: "DepthMap") -> Mapping[str, float]:
        """The largest difference of a pixel, relative to the expected distance."""
        if self.image_wh != expected.image_wh:
            return {"relative": float("inf")}
        strips = zip(self.whole.strips(), expected.whole.strips(), strict=True)
        differences = [np.abs(ours - theirs) / np.maximum(theirs, _TINY_M) for (_, ours), (_, theirs) in strips]
        return {"relative": max(float(difference.max()) for difference in differences)}


class Depth(ImageTask[Letterbox, DepthForm, DepthMap]):
    """Images to depth maps."""

    name = "depth"
    parameters = (
        Parameter(
            "depth_map",
            lambda value, _: read_choice("depth_map", value, _FORMATS),
            {"enum": list(_FORMATS), "default": DepthForm.depth_map},
            "of depth: which 16-bit PNGs JSON holds",
        ),
        Parameter(
            "depth_scale",
            lambda value, _: read_positive("depth_scale", value, most=_MOST_SCALE_M),
            NUMBER | {"exclusiveMinimum": 0, "maximum": _MOST_SCALE_M, "default": DepthForm.scale_m},
            "of depth: metres of a unit of the PNG, which holds 65535 of them",
            option="scale_m",
        ),
    )
    options = DepthForm
    schema_name = "DepthMap"
    schema: ClassVar[Schema] = {
        "depth_map": _PNG | {"description": "16-bit PNG in base64: distance in units of scale; 0: none"},
        "scale": NUMBER,
        "unit": STRING,
        "min": NUMBER,
        "max": NUMBER,
        "normalized_depth": _PNG | {"description": "16-bit PNG in base64: 65535 is the nearest pixel, 0 the farthest"},
        "limits_reached": {
            "type": "object",
            "description": "depth_map: the highest value of the PNG, where distances are beyond it",
            "properties": {"depth_map": INTEGER},
            "additionalProperties": False,
        },
    }
    tolerances: ClassVar[Mapping[str, float]] = {"relative": 1e-3}

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:  # noqa: ARG002
        """JSON, metres padded to the largest image, and the smallest and the largest distance of each image."""
        return [
            TensorMetadata(self.json_output, "BYTES", (-1,)),
            TensorMetadata("depth", "FP32", (-1, -1, -1)),
            TensorMetadata("depth_range", "FP32", (-1, 2)),
        ]

    def smallest_wh(self, image_wh: tuple[int, int], model: Model) -> tuple[int, int] | None:
        """The size of the input, where the profile allows that results change a little."""
        return _fill(image_wh, model).resized_wh if model.reduces_images else None

    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, Letterbox]:
        """Stretch an image to the model's input."""
        plan = _fill(size_wh, model)
        return to_input(letterbox(image_hwc, plan), model), plan

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: DepthForm
    ) -> DepthMap:
        """Read the map of the model.

        Raises:
            PredictorError: the output is no map of the size of the input.
        """
        output = outputs.get("depth", outputs.get("output0"))
        if output is None or output.shape not in {plan.input_wh[::-1], (1, *plan.input_wh[::-1])}:
            shapes = {name: array.shape for name, array in outputs.items()}
            raise PredictorError(f"{model.name}: got outputs {shapes}, expected depth of {plan.input_wh[::-1]}")
        # A copy: it outlives the response that it is part of. NaN and infinity are no distances.
        depth_m = np.array(output.reshape(plan.input_wh[::-1]), np.float32)
        depth_m[~np.isfinite(depth_m)] = 0
        ends = [(float(strip.min()), float(strip.max())) for _, strip in Bilinear(depth_m, plan.image_wh).strips()]
        range_m = min(low for low, _ in ends), max(high for _, high in ends)
        is_clipped = options.has_metric and range_m[1] > _HIGHEST * options.scale_m
        return DepthMap(depth_m, plan.image_wh, range_m, options, {"depth_map": _HIGHEST} if is_clipped else {})


def _fill(image_wh: tuple[int, int], model: Model) -> Letterbox:
    """How an image lies in the model's input: it fills all of it, whatever its proportions."""
    height, width = model.input.dims[:2] if is_fused(model) else model.input.dims[1:]
    input_wh = (width, height) if width > 0 and height > 0 else model.input_wh
    assert input_wh is not None, "describe() rejects a model for images without imgsz"  # noqa: S101
    return stretch(image_wh, input_wh)


DEPTH = register(Depth())
