"""A function for CVAT's agents and `cvat-cli task auto-annotate`: docs/labelling.md.

cvat-cli task auto-annotate 7 --function-module integrations.cvat -p model=str:digit-finder
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
import PIL.ImageOps
from cvat_sdk.masks import encode_mask

from integrations.nereid_client import Model, Nereid, decode_mask

# What CVAT calls the labels of a task; skeletons are made apart.
_TYPES = {"detect": "rectangle", "obb": "rectangle", "segment": "mask", "classify": "tag"}


def create(  # noqa: PLR0913 - what a user gives by -p, by name
    *,
    model: str,
    url: str = "",
    api_key: str = "",
    confidence: float | None = None,
    keypoint_confidence: float = 0.25,
    timeout_s: float = 60.0,
) -> "NereidFunction":
    """What CVAT calls with the parameters of `-p`.

    Args:
        model: its name on the server.
        url: of Nereid; without it NEREID_URL, else http://localhost:8080.
        api_key: without it NEREID_API_KEY.
        confidence: where CVAT names no threshold; without it the server's default.
        keypoint_confidence: keypoints of a lower visibility are marked as occluded.
        timeout_s: of one request.
    """
    nereid = Nereid(model, url, api_key, timeout_s=timeout_s)
    described = nereid.metadata().expect("pose", *_TYPES)
    return NereidFunction(nereid, described, confidence, keypoint_confidence)


class NereidFunction:
    """A detection function as `cvat_sdk.auto_annotation` defines it."""

    def __init__(self, nereid: Nereid, model: Model, confidence: float | None, keypoint_confidence: float) -> None:
        self._nereid, self._model = nereid, model
        self._confidence, self._keypoint_confidence = confidence, keypoint_confidence
        self.spec = cvataa.DetectionFunctionSpec(labels=[self._label(index) for index in model.classes])

    def detect(self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image) -> Sequence[Any]:
        """Tags or shapes of one image, in pixels of it as CVAT shows it: after EXIF rotation."""
        confidence = self._confidence if context.conf_threshold is None else context.conf_threshold
        parameters: dict[str, Any] = {"confidence": confidence}
        if self._model.task == "segment":
            parameters["mask"] = "polygon" if context.conv_mask_to_poly else "rle"
        elif self._model.task == "classify":
            parameters["top_k"] = 1
        response = self._nereid.predict(_encode(image), **parameters)
        return [annotation for found in response["predictions"] for annotation in self._annotations(found)]

    def _label(self, index: int) -> Any:
        name = self._model.classes[index]
        if self._model.task != "pose":
            return cvataa.label_spec(name, index, type=_TYPES[self._model.task])
        points = [cvataa.keypoint_spec(point, number) for number, point in enumerate(self._model.keypoints[index])]
        return cvataa.skeleton_label_spec(name, index, points)

    def _annotations(self, found: dict[str, Any]) -> list[Any]:
        label, score = found["class_id"], found["confidence"]
        match self._model.task:
            case "classify":
                return [cvataa.tag(label)]
            case "segment" if "rle" in found:
                return [cvataa.mask(label, encode_mask(decode_mask(found["rle"])), score=score)]
            case "segment":
                parts = found.get("parts") or [found["points"]]
                rings = [[value for point in part for value in (point["x"], point["y"])] for part in parts]
                return [cvataa.polygon(label, [float(value) for value in ring], score=score) for ring in rings]
            case "pose":
                return [cvataa.skeleton(label, [self._keypoint(point) for point in found["keypoints"]], score=score)]
            case "obb":
                box = found["rotated_box"]
                return [cvataa.rectangle(label, _corners(box), rotation=math.degrees(box["rotation"]), score=score)]
            case _:
                return [cvataa.rectangle(label, _corners(found), score=score)]

    def _keypoint(self, point: dict[str, Any]) -> Any:
        occluded = point["confidence"] < self._keypoint_confidence
        return cvataa.keypoint(point["class_id"], [float(point["x"]), float(point["y"])], occluded=occluded)


def _corners(box: dict[str, float]) -> list[float]:
    """x1, y1, x2, y2 of a box before it is turned about its centre, which is how CVAT turns it."""
    half_width, half_height = box["width"] / 2, box["height"] / 2
    return [box["x"] - half_width, box["y"] - half_height, box["x"] + half_width, box["y"] + half_height]


def _encode(image: PIL.Image.Image) -> bytes:
    """PNG, without loss; upright, for CVAT's server turns what it shows, and its SDK may not have."""
    buffer = io.BytesIO()
    upright = PIL.ImageOps.exif_transpose(image)
    kept = upright if upright.mode in {"RGB", "L", "RGBA", "LA", "P", "1", "I;16"} else upright.convert("RGB")
    kept.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
