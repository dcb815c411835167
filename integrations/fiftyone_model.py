"""A model for FiftyOne: `dataset.apply_model(NereidModel("digit-finder"), label_field="nereid")`; docs/labelling.md."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import numpy as np
import PIL.Image
from fiftyone.core.models import Model, SamplesMixin
from numpy.typing import NDArray

from integrations.nereid_client import Nereid, decode_mask


class NereidModel(SamplesMixin, Model):  # type: ignore[misc]
    """Sends each image as its file has it, so that its result is that of `/predict`."""

    def __init__(  # noqa: PLR0913
        self,
        model: str,
        url: str = "",
        api_key: str = "",
        *,
        confidence: float | None = None,
        top_k: int = 1,
        connections: int = 4,
        timeout_s: float = 60.0,
    ) -> None:
        """Fetch the model's task and names.

        Args:
            model: its name on the server.
            url: of Nereid; without it NEREID_URL, else http://localhost:8080.
            api_key: without it NEREID_API_KEY.
            confidence: threshold; without it the server's default. `apply_model(confidence_thresh=)` comes before.
            top_k: classes of a classifier: one is a Classification, more are Classifications.
            connections: how many images of a batch are sent at once.
            timeout_s: of one request.
        """
        super().__init__()
        self._nereid = Nereid(model, url, api_key, timeout_s=timeout_s)
        self.model = self._nereid.metadata().expect("detect", "segment", "pose", "obb", "classify")
        # apply_model sets these two where they exist, and leaves the rest to the model.
        self.config = SimpleNamespace(confidence_thresh=confidence, filter_classes=None)
        self._top_k, self._connections = top_k, connections

    media_type = "image"
    ragged_batches = False
    transforms = None
    preprocess = False

    def predict(self, arg: NDArray[np.uint8], sample: Any = None) -> Any:
        """Labels of one image: `arg` in RGB, or the file of `sample`, where that is an image."""
        is_file = sample is not None and sample.media_type == "image"
        response = self._nereid.predict(
            Path(sample.filepath).read_bytes() if is_file else _png(arg), **self._parameters()
        )
        size_wh = (response["image"]["width"], response["image"]["height"])
        found = response["predictions"]
        match self.model.task:
            case "classify":
                classes = [fo.Classification(label=each["class"], confidence=each["confidence"]) for each in found]
                if self._top_k > 1:
                    return fo.Classifications(classifications=classes)
                return classes[0] if classes else None
            case "pose":
                return fo.Keypoints(keypoints=[_keypoint(each, size_wh) for each in found])
            case "obb":
                return fo.Polylines(polylines=[_polyline(each, size_wh) for each in found])
            case _:
                return fo.Detections(detections=[_detection(each, size_wh) for each in found])

    def predict_all(self, args: Iterable[NDArray[np.uint8]], samples: Iterable[Any] | None = None) -> list[Any]:
        """Labels of a batch, several requests at once: the server makes batches of them."""
        images = list(args)
        with ThreadPoolExecutor(self._connections) as pool:
            return list(pool.map(self.predict, images, [None] * len(images) if samples is None else samples))

    def _parameters(self) -> dict[str, Any]:
        wanted = self.config.filter_classes
        parameters: dict[str, Any] = {"confidence": self.config.confidence_thresh, "classes": wanted and sorted(wanted)}
        extra: dict[str, dict[str, Any]] = {"segment": {"mask": "rle"}, "classify": {"top_k": self._top_k}}
        return parameters | extra.get(self.model.task, {})


def _detection(found: dict[str, Any], size_wh: tuple[int, int]) -> fo.Detection:
    label, confidence = found["class"], found["confidence"]
    if "rle" in found:
        return fo.Detection.from_mask(decode_mask(found["rle"]), label=label, confidence=confidence)
    width, height = size_wh
    box = found["box"]
    edges = [box["x1"] / width, box["y1"] / height, found["width"] / width, found["height"] / height]
    return fo.Detection(label=label, confidence=confidence, bounding_box=edges)


def _keypoint(found: dict[str, Any], size_wh: tuple[int, int]) -> fo.Keypoint:
    points = found["keypoints"]
    return fo.Keypoint(
        label=found["class"],
        points=_relative(points, size_wh),
        confidence=[point["confidence"] for point in points],
        object_confidence=found["confidence"],
    )


def _polyline(found: dict[str, Any], size_wh: tuple[int, int]) -> fo.Polyline:
    corners = _relative(found["corners"], size_wh)
    return fo.Polyline(
        label=found["class"], confidence=found["confidence"], points=[corners], closed=True, filled=False
    )


def _relative(points: list[dict[str, float]], size_wh: tuple[int, int]) -> list[tuple[float, float]]:
    return [(point["x"] / size_wh[0], point["y"] / size_wh[1]) for point in points]


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
