"""Classification: an image in, a probability for each class out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.imaging.drawing import Label, draw_label
from transformer.imaging.letterbox import Image
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.schemas import CLASS, FRACTION, STRING, array_of, object_of
from transformer.tasks.task import (
    Array,
    ImagePrediction,
    ImageTask,
    NoOptions,
    Schema,
    Write,
    largest_difference,
    register,
)
from transformer.triton.model import Model, TensorMetadata

_MAX_SIDE_PX = 2048
_BEST_CLASSES = 5
_CLASS_JSON_BYTES = 80


@dataclass(frozen=True)
class Classification(ImagePrediction):
    """The classes of an image.

    Attributes:
        probabilities: `(classes,)`.
    """

    probabilities: NDArray[np.float32]

    @property
    def best_class(self) -> tuple[int, float]:
        """The most probable class."""
        class_id = int(self.probabilities.argmax())
        return class_id, float(self.probabilities[class_id])

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of best classes."""
        return _BEST_CLASSES * _CLASS_JSON_BYTES + len(self.probabilities)  # which are sorted

    def to_json(self, model: Model) -> dict[str, Any]:
        """The best classes, and the very best beside them."""
        predictions = [
            {
                "class": class_name(model, int(class_id)),
                "class_id": int(class_id),
                "confidence": round_score(self.probabilities[class_id]),
            }
            for class_id in np.argsort(-self.probabilities, kind="stable")[:_BEST_CLASSES]
        ]
        top = predictions[0]
        return {"predictions": predictions, "top": top["class"], "confidence": top["confidence"]}

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Classification]", model: Model) -> Mapping[str, Write]:  # noqa: ARG003
        """All probabilities, and the best class of each image."""
        return write_probabilities(np.stack([prediction.probabilities for prediction in predictions]))

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """The best class in the upper left corner."""
        class_id, score = self.best_class
        return draw_label(image_hwc, Label(class_name(model, class_id), class_id=class_id, score=score))

    def compare(self, expected: "Classification") -> Mapping[str, float]:
        """The largest difference of a probability."""
        return {"probabilities": largest_difference(self.probabilities, expected.probabilities)}


class Classify(ImageTask[None, NoOptions, Classification]):
    """Images to probabilities."""

    name = "classify"
    classifies = True
    schema_name = "Classification"
    schema: ClassVar[Schema] = {"predictions": array_of(object_of(CLASS)), "top": STRING, "confidence": FRACTION}
    tolerances: ClassVar[Mapping[str, float]] = {"probabilities": 1e-3}

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """JSON, probabilities, best class."""
        return [TensorMetadata(self.json_output, "BYTES", (-1,)), *describe_probabilities(model)]

    def preprocess(self, image_hwc: Image, model: Model, *, size_wh: tuple[int, int]) -> tuple[Array, None]:  # noqa: ARG002
        """Bring an image to the model's size and channels, see `fill`."""
        return fill(image_hwc, model), None

    def postprocess(
        self,
        outputs: Mapping[str, Array],
        model: Model,
        *,
        plan: None,  # noqa: ARG002
        options: NoOptions,  # noqa: ARG002
    ) -> Classification:
        """Probabilities from the model's first output.

        Raises:
            PredictorError: it has another shape than the model has classes.
        """
        probabilities = outputs[model.outputs[0].name]
        if probabilities.shape != (model.classes,):
            raise PredictorError(f"{model.name}: got probabilities {probabilities.shape}, expected ({model.classes},)")
        return Classification(probabilities.astype(np.float32, copy=False))


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
