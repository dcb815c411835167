"""The cost of less than FP32 for a detector: mean average precision beside that of FP32, on the same images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.average_precision import Rows, mean_average_precision
from export.proof.calibration import Sample
from export.proof.predictions import select_all
from transformer.tasks import image_task
from transformer.triton.model import Model

Precision = Literal["fp32", "bf16", "int8"]
Track = Callable[[Iterable[int], str], Iterable[int]]

LIMITS: Mapping[Precision, float] = {"bf16": 0.005, "int8": 0.02}

_LOWEST = 0.001  # score: everything
# Detections of FP32 with at least this score are the truth where there are no labels. Below it, a last bit decides
# which of two boxes of the same object NMS keeps.
_SURE = 0.5


class Runs(Protocol):
    """Anything that runs the model."""

    def infer(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, with their batch dimension."""


@dataclass(frozen=True)
class Truth:
    """What counts as correct, and the figure of FP32.

    Attributes:
        kind: `labels`, or `fp32` for the detections of FP32.
        labels: by image: x1, y1, x2, y2, class id, in pixels.
        sizes_wh: of each image.
        map50_95: of FP32.
    """

    kind: Literal["labels", "fp32"]
    labels: Mapping[str, Rows]
    sizes_wh: Mapping[str, tuple[int, int]]
    map50_95: float


def find_truth(fp32: Runs, model: Model, samples: Sequence[Sample], *, track: Track) -> Truth:
    """Run FP32 on the images.

    Raises:
        ExportError: there are no labels, and FP32 detects nothing.
    """
    found, labels, sizes_wh = {}, {}, {}
    for index in track(range(len(samples)), "measure fp32"):
        sample = samples[index]
        image_hwc = sample.image.image_hwc
        rows = _detect(fp32, model, image_hwc)
        found[sample.image.name] = rows
        sizes_wh[sample.image.name] = image_hwc.shape[1], image_hwc.shape[0]
        if sample.labels is not None:
            labels[sample.image.name] = sample.labels
    kind: Literal["labels", "fp32"] = "labels" if any(labels.values()) else "fp32"
    if kind == "fp32":
        labels = {name: [[*row[:4], row[5]] for row in rows if row[4] >= _SURE] for name, rows in found.items()}
    if not any(labels.values()):
        raise ExportError(
            f"precision: FP32 finds nothing on {len(samples)} images, expected something to compare; next: "
            "--calibration with images of what the model knows"
        )
    return Truth(kind, labels, sizes_wh, mean_average_precision(found, labels, sizes_wh)[0])


def measure(  # noqa: PLR0913 - one argument for each fact
    precision: Precision, run: Runs, model: Model, samples: Sequence[Sample], truth: Truth, *, track: Track
) -> dict[str, Any]:
    """Run a precision on the images.

    Returns:
        Its entry of the manifest.

    Raises:
        ExportError: it costs more than its limit.
    """
    found = {}
    for index in track(range(len(samples)), f"measure {precision}"):
        image = samples[index].image
        found[image.name] = _detect(run, model, image.image_hwc)
    map50_95, _ = mean_average_precision(found, truth.labels, truth.sizes_wh)
    change = map50_95 - truth.map50_95
    limit = LIMITS[precision]
    if not change >= -limit:
        source = "the labels" if truth.kind == "labels" else "what FP32 finds"
        raise ExportError(
            f"{precision}: mAP50-95 against {source}: got {map50_95:.4f}, expected at most {limit} below FP32's "
            f"{truth.map50_95:.4f} ({len(samples)} images); next: more images of what the model will see in "
            f"--calibration, or omit --precision {precision}"
        )
    return {
        "map50_95": round(map50_95, 4),
        "fp32": round(truth.map50_95, 4),
        "change": round(change, 4),
        "pictures": len(samples),
        "truth": truth.kind,
    }


def _detect(run: Runs, model: Model, image_hwc: NDArray[np.uint8]) -> Rows:
    model_input, plan = image_task(model).preprocess(image_hwc, model, size_wh=image_hwc.shape[1::-1])
    outputs = {name: output[0] for name, output in run.infer(model_input[None]).items()}
    found = image_task(model).postprocess(outputs, model, plan=plan, options=select_all(model, confidence=_LOWEST))
    rows = np.column_stack([found.boxes_xyxy, found.scores, found.class_ids])
    return [[float(value) for value in row] for row in rows]
