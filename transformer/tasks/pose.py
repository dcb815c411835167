"""Pose: an image in, boxes with keypoints out.

The graph has decoded the keypoints: `keypoints` `(N, K, D)` of the `fused` interface, or the last K * D values of each
candidate in `output0`; D is 2 (x, y in model pixels) or 3 (and visibility, 0 to 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from transformer.errors import PredictorError
from transformer.imaging.letterbox import Image, Letterbox, unletterbox, unletterbox_points
from transformer.imaging.nms import Floats
from transformer.imaging.skeletons import PERSON, PERSON_LINES, draw_skeletons
from transformer.tasks.candidates import Ids, read_candidates, select
from transformer.tasks.detection_options import SELECTION_PARAMETERS, Selection
from transformer.tasks.labels import round_score
from transformer.tasks.objects import LIMITS_REACHED, OBJECT_PROPERTIES, Detections, FindObjects, pad_rows
from transformer.tasks.parameter_values import read_fraction
from transformer.tasks.schemas import CLASS, FRACTION, INTEGER, NUMBER, STRING, array_of, object_of
from transformer.tasks.task import Array, Parameter, Schema, Write, largest_difference, register
from transformer.triton.model import Model, ModelConfigError, TensorMetadata, is_text

_MAX_KEYPOINTS = 512  # of an object: a face mesh has 478
_MAX_NAME = 100  # characters: each object has all names in JSON
_MAX_NAMES = 100_000  # keypoints of all classes together, which the model's metadata names
_KEYPOINT_JSON_BYTES = 80
_DRAWN_VISIBILITY = 0.25  # as Ultralytics draws them


@dataclass(frozen=True)
class PoseSelection(Selection):
    """Which objects and which of their keypoints a client wants.

    Attributes:
        keypoint_confidence: keypoints whose visibility is below this are left out of the JSON.
    """

    keypoint_confidence: float = 0.0


@dataclass(frozen=True)
class Poses(Detections):
    """The objects of an image with their keypoints.

    Attributes:
        keypoints: `(N, K, 3)`: x, y in pixels of the original image, clipped to it, and visibility, 0 to 1.
        least_visibility: keypoints below it are left out of the JSON.
    """

    keypoints: Floats = field(kw_only=True)
    least_visibility: float = field(default=0.0, kw_only=True)

    figures: ClassVar[tuple[str, ...]] = ("boxes_px", "scores", "keypoints_px", "visibility")

    @property
    def places(self) -> Floats:
        """Boxes and keypoints: two objects may have nearly the same box."""
        objects, keypoints, _ = self.keypoints.shape
        return np.concatenate([self.boxes_xyxy, self.keypoints[..., :2].reshape(objects, 2 * keypoints)], axis=1)

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of detections and keypoints."""
        return super().json_bytes + self.keypoints.size // 3 * _KEYPOINT_JSON_BYTES

    def to_json(self, model: Model) -> dict[str, Any]:
        """Detections, each with `keypoints`; their `class_id` is the index among the model's keypoints."""
        document = super().to_json(model)
        objects = zip(document["predictions"], self.keypoints.astype(float).tolist(), strict=True)
        for prediction, keypoints in objects:
            names = keypoint_names(model, prediction["class_id"])
            prediction["keypoints"] = [
                {
                    "x": round(x, 3),
                    "y": round(y, 3),
                    "confidence": round_score(visibility),
                    "class_id": index,
                    "class": names[index],
                }
                for index, (x, y, visibility) in enumerate(keypoints)
                if not visibility < self.least_visibility
            ]
        return document

    @classmethod
    def to_tensors(cls, predictions: "Sequence[Poses]", model: Model) -> Mapping[str, Write]:
        """Those of detections, and all keypoints."""
        keypoints = [each.keypoints for each in predictions]
        tail = (_keypoint_shape(model)[0], 3)
        return {
            **super().to_tensors(predictions, model),
            "keypoints": partial(pad_rows, keypoints, np.float32, tail),
        }

    def draw(self, image_hwc: Image, model: Model) -> Image:
        """Boxes, and the keypoints that are visible; those of a person with lines between them."""
        drawn = super().draw(image_hwc, model)
        least = max(self.least_visibility, _DRAWN_VISIBILITY)
        draw_skeletons(drawn, self.keypoints[::-1], lines=_lines(model), least_visibility=least)
        return drawn

    def compare_pairs(self, expected: "Poses", ones: Ids, others: Ids) -> Mapping[str, float]:
        """As detections, with their keypoints and visibilities."""
        mine, theirs = self.keypoints[ones], expected.keypoints[others]
        return {
            **super().compare_pairs(expected, ones, others),
            "keypoints_px": largest_difference(mine[..., :2], theirs[..., :2]),
            "visibility": largest_difference(mine[..., 2], theirs[..., 2]),
        }


class Pose(FindObjects[Poses]):
    """Images to boxes with keypoints."""

    name = "pose"
    schema_name = "Poses"
    parameters = (
        *SELECTION_PARAMETERS,
        Parameter(
            "keypoint_confidence",
            lambda value, _: read_fraction("keypoint_confidence", value),
            FRACTION | {"default": PoseSelection.keypoint_confidence},
            "keypoints of a pose whose visibility is below this are left out of the JSON",
        ),
    )
    options = PoseSelection
    facts = ("kpt_shape", "kpt_names")
    schema: ClassVar[Schema] = {
        "predictions": array_of(
            object_of(
                {
                    **OBJECT_PROPERTIES,
                    "keypoints": array_of(object_of({"x": NUMBER, "y": NUMBER} | CLASS, title="Keypoint")),
                },
                title="Pose",
            )
        ),
        "limits_reached": LIMITS_REACHED,
    }
    metadata_schema: ClassVar[Schema] = {
        "kpt_shape": array_of(INTEGER),
        "kpt_names": {
            "type": "object",
            "description": "names of the keypoints of each class, by its index",
            "additionalProperties": array_of(STRING),
        },
    }
    tolerances: ClassVar[Mapping[str, float]] = {
        **FindObjects.tolerances,
        "keypoints_px": 1.0,
        "visibility": 0.005,
    }

    def check(self, model: Model) -> None:
        """Named classes, `kpt_shape`, and as many names of keypoints as it says."""
        super().check(model)
        if not model.names:
            raise ModelConfigError(f"{model.name}: names is missing in parameters.metadata: a pose has classes")
        count, _ = _keypoint_shape(model)
        if count * len(model.names) > _MAX_NAMES:
            raise ModelConfigError(
                f"{model.name}: kpt_shape in parameters.metadata: got {count} keypoints of {len(model.names)} classes, "
                f"expected at most {_MAX_NAMES} in all"
            )
        given = model.facts.get("kpt_names", {})
        for names in given.values() if isinstance(given, dict) else [given]:
            is_list = isinstance(names, list | tuple) and len(names) == count
            if not is_list or not all(map(_is_name, names)):
                raise ModelConfigError(
                    f"{model.name}: kpt_names in parameters.metadata: got {names!r:.80}, expected {count} texts of at "
                    f"most {_MAX_NAME} characters"
                )

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """As of detections, and the keypoints."""
        count, _ = _keypoint_shape(model)
        return [*super().outputs(model), TensorMetadata("keypoints", "FP32", (-1, -1, count, 3))]

    def metadata(self, model: Model) -> dict[str, Any]:
        """How many keypoints an object has, and their names."""
        return {
            "kpt_shape": list(_keypoint_shape(model)),
            "kpt_names": {str(class_id): keypoint_names(model, class_id) for class_id in model.names},
        }

    def postprocess(self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Selection) -> Poses:
        """Select among the model's candidates and map them, with their keypoints, to the image."""
        count, values = _keypoint_shape(model)
        candidates = read_candidates(outputs, model, above=options.confidence, rest="keypoints")
        objects, reached = select(candidates, model, options)
        found = objects.rest["keypoints"]
        if found.shape[1:] not in {(count, values), (count * values,)}:
            raise PredictorError(
                f"{model.name}: got keypoints {found.shape[1:]} of an object, expected {(count, values)}: kpt_shape"
            )
        points = found.reshape(-1, count, values)
        visibility = points[..., 2:] if values == 3 else np.ones((len(points), count, 1), np.float32)
        return Poses(
            unletterbox(objects.boxes, plan),
            objects.scores,
            objects.class_ids,
            reached,
            keypoints=np.concatenate([unletterbox_points(points[..., :2], plan), visibility], axis=2),
            least_visibility=getattr(options, "keypoint_confidence", 0.0),
        )


def keypoint_names(model: Model, class_id: int) -> list[str]:
    """Names of the keypoints of a class; their indices where the model names none."""
    given = model.facts.get("kpt_names", {})
    names = given.get(class_id, given.get(str(class_id))) if isinstance(given, dict) else given
    return list(names) if names else [str(index) for index in range(_keypoint_shape(model)[0])]


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= _MAX_NAME and is_text(name)


def _keypoint_shape(model: Model) -> tuple[int, int]:
    """Keypoints of an object, and values of each: x and y, or x, y and visibility.

    Raises:
        ModelConfigError: the config does not say it.
    """
    shape = model.facts.get("kpt_shape")
    if isinstance(shape, list | tuple) and len(shape) == 2 and all(type(number) is int for number in shape):
        count, values = shape
        if 1 <= count <= _MAX_KEYPOINTS and values in {2, 3}:
            return count, values
    raise ModelConfigError(
        f"{model.name}: kpt_shape in parameters.metadata: got {shape!r:.80}, expected [keypoints, 2 or 3], of at most "
        f"{_MAX_KEYPOINTS} keypoints"
    )


def _lines(model: Model) -> Sequence[tuple[int, int]]:
    """Lines between the keypoints of a person, by their names, or where a model of persons names none."""
    names = keypoint_names(model, min(model.names))
    is_unnamed = names == [str(index) for index in range(len(PERSON))]
    is_person = tuple(names) == PERSON or (is_unnamed and set(model.names.values()) == {"person"})
    return PERSON_LINES if is_person else ()


POSE = register(Pose())
