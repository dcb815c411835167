"""Classification: an image in, a probability for each class out.

The model's input decides the form of the image: UINT8 height x width x channel, or, in Ultralytics' own interface,
`images` FP32 channel x height x width in 0 to 1. `parameters.metadata` decides how the image comes to its size: by
`resize` (see `transformer.tasks.resize`), or, where there is none, so that all of it is seen (`fill`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import Label, draw_label, draw_region
from transformer.imaging.letterbox import Image
from transformer.offload import ARRAY_VALUE
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.parameter_values import read_classes, read_count, read_fraction
from transformer.tasks.resize import read_resize
from transformer.tasks.schemas import CLASS, FRACTION, INTEGER, NUMBER, STRING, array_of, object_of
from transformer.tasks.task import (
    Array,
    ImagePrediction,
    ImageTask,
    Parameter,
    Schema,
    Write,
    largest_difference,
    register,
)
from transformer.triton.model import Model, TensorMetadata

MAX_TOP_K = 1000
_MAX_SIDE_PX = 2048
_CLASS_JSON_BYTES = 80
_RESIZE = "resize"

Region = tuple[float, float, float, float]


@dataclass(frozen=True)
class Choice:
    """Which classes a client wants.

    Attributes:
        top_k: how many, the best ones.
        confidence: probabilities must be at least this.
        class_ids: only these classes; None for all.
    """

    top_k: int = 5
    confidence: float = 0.0
    class_ids: frozenset[int] | None = None


@dataclass(frozen=True)
class Classification(ImagePrediction):
    """The classes of an image.

    Attributes:
        probabilities: `(classes,)`.
        choice: which of them a client wants.
        crop_xyxy: the part of the image that the model saw, in pixels; None where that is not known.
    """

    probabilities: NDArray[np.float32]
    choice: Choice = field(default_factory=Choice)
    crop_xyxy: Region | None = None

    @property
    def best_class(self) -> tuple[int, float]:
        """The most probable class."""
        class_id = int(self.probabilities.argmax())
        return class_id, float(self.probabilities[class_id])

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of best classes."""
        return self.choice.top_k * _CLASS_JSON_BYTES + len(self.probabilities)  # which are searched

    def to_json(self, model: Model) -> dict[str, Any]:
        """The best classes, the very best beside them, and the part of the image that was seen."""
        ids = self.best()
        scores = [round_score(self.probabilities[class_id]) for class_id in ids]
        predictions = [
            {"class": class_name(model, class_id), "class_id": class_id, "confidence": score}
            for class_id, score in zip(ids, scores, strict=True)
            if score >= self.choice.confidence
        ]
        corners = [round(float(value), 3) for value in self.crop_xyxy or ()]
        return {
            "predictions": predictions,
            "top": class_name(model, ids[0]) if ids else "",
            "confidence": scores[0] if ids else 0.0,
            "crop": dict(zip(("x1", "y1", "x2", "y2"), corners, strict=False)),
        }

    def best(self) -> list[int]:
        """Indices of the best classes that the client wants, best first; of equal ones the lower index first."""
        return find_best(self.probabilities, self.choice.top_k, among=self.choice.class_ids)

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Classification]", model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        """All probabilities, and the best class of each image."""
        return write_probabilities(np.stack([prediction.probabilities for prediction in predictions]))

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """The best class in the upper left corner, and a frame around what the model saw, where that is not all."""
        height, width = image_hwc.shape[:2]
        if self.crop_xyxy is not None and self.crop_xyxy != (0, 0, width, height):
            image_hwc = draw_region(image_hwc, self.crop_xyxy)
        best = self.best()[:1]
        if not best:
            return image_hwc.copy()
        score = float(self.probabilities[best[0]])
        return draw_label(image_hwc, Label(class_name(model, best[0]), class_id=best[0], score=score))

    def compare(self, expected: "Classification") -> Mapping[str, float]:
        """The largest difference of a probability."""
        return {"probabilities": largest_difference(self.probabilities, expected.probabilities)}


class Classify(ImageTask[Region, Choice, Classification]):
    """Images to probabilities."""

    name = "classify"
    classifies = True
    parameters = (
        Parameter(
            "top_k",
            lambda value, _: read_count("top_k", value, most=MAX_TOP_K),
            INTEGER | {"minimum": 1, "maximum": MAX_TOP_K, "default": Choice.top_k},
            "the best classes, at most this many",
        ),
        Parameter(
            "confidence",
            lambda value, _: read_fraction("confidence", value),
            FRACTION | {"default": Choice.confidence},
            "probabilities must be at least this",
        ),
        Parameter("classes", read_classes, STRING, "only these classes", option="class_ids", repeats=True),
    )
    options = Choice
    facts = (_RESIZE,)
    schema_name = "Classification"
    schema: ClassVar[Schema] = {
        "predictions": array_of(object_of(CLASS, title="ClassConfidence")),
        "top": STRING,
        "confidence": FRACTION,
        "crop": object_of(dict.fromkeys(("x1", "y1", "x2", "y2"), NUMBER))
        | {"description": "the part of the image that the model saw, in pixels"},
    }
    metadata_schema: ClassVar[Schema] = {
        _RESIZE: {"type": "object", "description": "how an image comes to the model's size"}
    }
    tolerances: ClassVar[Mapping[str, float]] = {"probabilities": 1e-3}

    def check(self, model: Model) -> None:
        """As of every task on images; and the description of the resize."""
        super().check(model)
        read_resize(model)

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """JSON, probabilities, best class."""
        return [TensorMetadata(self.json_output, "BYTES", (-1,)), *describe_probabilities(model)]

    def metadata(self, model: Model) -> dict[str, Any]:
        """How an image comes to the model's size, where its config says so."""
        return {_RESIZE: dict(model.facts[_RESIZE])} if _RESIZE in model.facts else {}

    def smallest_wh(self, image_wh: tuple[int, int], model: Model) -> tuple[int, int] | None:
        """The size that all of it is resized to, where the profile allows that probabilities change a little."""
        resize = read_resize(model) if model.reduces_images else None
        return resize.place(image_wh).resized_wh if resize else None

    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, Region]:
        """Bring an image to the model's size and channels; the plan is the part of the image that the model sees."""
        resize = read_resize(model)
        if resize is None:
            pixels, crop_xyxy = fill(image_hwc, model), (0.0, 0.0, float(size_wh[0]), float(size_wh[1]))
        else:
            placement = resize.place(size_wh)
            pixels, crop_xyxy = resize.apply(image_hwc, placement, channels=model.channels), placement.crop_xyxy
        if model.input.datatype == "UINT8":
            return pixels, crop_xyxy
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255), crop_xyxy

    def postprocess_cost(self, outputs: Mapping[str, Array]) -> float:
        """Probabilities are checked and copied."""
        return sum(output.size for output in outputs.values()) * ARRAY_VALUE

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Region, options: Choice
    ) -> Classification:
        """Probabilities from the model's first output.

        Raises:
            PredictorError: it has another shape than the model has classes, or numbers that are NaN or infinite.
        """
        probabilities = outputs[model.outputs[0].name]
        if probabilities.shape != (model.classes,):
            raise PredictorError(f"{model.name}: got probabilities {probabilities.shape}, expected ({model.classes},)")
        if not np.isfinite(probabilities).all():
            raise PredictorError(f"{model.name}: got probabilities that are NaN or infinite")
        return Classification(probabilities.astype(np.float32, copy=False), options, plan)


def find_best(probabilities: NDArray[np.float32], count: int, *, among: frozenset[int] | None = None) -> list[int]:
    """Indices of the highest probabilities, without sorting all of them.

    Args:
        probabilities: `(classes,)`.
        count: at most this many.
        among: indices of the classes that count; None for all.

    Returns:
        The best first; of equal ones the lower index first.
    """
    ids = np.arange(len(probabilities))
    if among is not None:
        ids = np.array(sorted(each for each in among if each < len(probabilities)), np.int64)
    if count < len(ids):
        chosen = probabilities[ids]
        ids = ids[chosen >= np.partition(chosen, -count)[-count]]  # more than `count` only where some are equal
    best = ids[np.argsort(-probabilities[ids], kind="stable")][:count]
    return [int(class_id) for class_id in best]


def fill(image_hwc: Image, model: Model) -> NDArray[np.uint8]:
    """Bring an image to the model's size and channels.

    The shorter side is widened by repeating the edge, so that nothing is cut off and proportions stay.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        model: for size and channels (1: grey).

    Returns:
        UINT8 `(height, width, channels)`, without batch dimension.
    """
    assert model.input_wh is not None, "describe() rejects a classifier without imgsz"  # noqa: S101
    height, width = image_hwc.shape[:2]
    plane = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY) if model.channels == 1 else image_hwc
    if max(height, width) > _MAX_SIDE_PX:
        # Squaring takes the longer side squared in memory: scale down first.
        scale = _MAX_SIDE_PX / max(height, width)
        size_wh = max(round(width * scale), 1), max(round(height * scale), 1)
        plane = cv2.resize(plane, size_wh, interpolation=cv2.INTER_AREA)
        height, width = plane.shape[:2]
    space_x, space_y = max(height - width, 0), max(width - height, 0)
    square = cv2.copyMakeBorder(
        plane, space_y // 2, space_y - space_y // 2, space_x // 2, space_x - space_x // 2, cv2.BORDER_REPLICATE
    )
    interpolation = cv2.INTER_AREA if square.shape[0] > model.input_wh[1] else cv2.INTER_LINEAR
    resized = cv2.resize(square, model.input_wh, interpolation=interpolation)
    return np.asarray(resized, np.uint8).reshape(model.input_wh[1], model.input_wh[0], model.channels)


def describe_probabilities(model: Model) -> list[TensorMetadata]:
    """The tensors of `write_probabilities`."""
    return [TensorMetadata("probabilities", "FP32", (-1, model.classes)), TensorMetadata("class_id", "INT32", (-1,))]


def write_probabilities(probabilities: NDArray[np.float32]) -> dict[str, Write]:
    """Probabilities `(items, classes)` and the best class of each item."""
    return {
        "probabilities": lambda: probabilities,
        "class_id": lambda: probabilities.argmax(axis=1).astype(np.int32),
    }


CLASSIFY = register(Classify())
