"""The cost of less than FP32 for a map: mean IoU of its classes, or the mean error of its distances, beside FP32's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph import compatibility
from export.graph.int8 import quantise
from export.proof.calibration import Sample
from export.proof.drawn_images import draw_images
from export.proof.low_precision import Lowering
from export.proof.precision import Precision, Runs, Track
from export.proof.session import Session
from export.writer.profiles import INT8, ONNX
from transformer.tasks import describe, image_task
from transformer.tasks.depth import DepthMap
from transformer.tasks.semantic import Segmentation
from transformer.triton.model import Model

# Of the mean IoU, below 1, and of the mean relative error of a pixel.
LIMITS: Mapping[str, Mapping[Precision, float]] = {
    "miou": {"bf16": 0.05, "int8": 0.15},
    "relative_error": {"bf16": 0.02, "int8": 0.1},
}
_METRICS = {"semantic": "miou", "depth": "relative_error"}


class MapLowering(Lowering):
    """Makes and tries a model of maps in less than FP32; what FP32 finds is the truth, for there are no labels."""

    def measure(self, session: Session, calibration: Sequence[Sample] | None, *, track: Track) -> dict[str, Any]:
        """As `Lowering.measure`, with the metric of the task."""
        model = describe(self._config, version="0")
        samples = calibration or [Sample(image, None) for image in draw_images()]
        costs: dict[str, Any] = {}
        for precision in self._wanted:
            if precision == "int8":
                self._quantise(model, samples, track)
            run = self._load(INT8 if precision == "int8" else ONNX)
            costs[precision] = measure(precision, run, session, model, samples, track=track)
        return costs

    def _quantise(self, model: Model, samples: Sequence[Sample], track: Track) -> None:
        inputs = (
            preprocess(samples[index].image.image_hwc, model)[0][None]
            for index in track(range(len(samples)), "calibrate int8")
        )
        self._graphs[INT8] = quantise(self._graphs[ONNX], inputs)
        compatibility.check(self._graphs[INT8])


def preprocess(image_hwc: NDArray[np.uint8], model: Model) -> tuple[NDArray[Any], Any]:
    """The input of a model without batch dimension, and the plan."""
    return image_task(model).preprocess(image_hwc, model, size_wh=(image_hwc.shape[1], image_hwc.shape[0]))


def measure(  # noqa: PLR0913 - one argument for each fact
    precision: Precision, run: Runs, fp32: Runs, model: Model, samples: Sequence[Sample], *, track: Track
) -> dict[str, Any]:
    """Run a precision on the images, and FP32 beside it.

    Returns:
        Its entry of the manifest.

    Raises:
        ExportError: it costs more than its limit.
    """
    metric = _METRICS[str(model.task)]
    pairs = (
        (_predict(run, model, samples[index]), _predict(fp32, model, samples[index]))
        for index in track(range(len(samples)), f"measure {precision}")
    )
    figure = mean_iou(pairs, model) if metric == "miou" else mean_error(pairs)
    best = 1.0 if metric == "miou" else 0.0
    limit = LIMITS[metric][precision]
    if not abs(figure - best) <= limit:
        raise ExportError(
            f"{precision}: {metric} against what FP32 finds: got {figure:.4f}, expected at most {limit} from {best} "
            f"({len(samples)} images); next: more images of what the model will see in --calibration, or omit "
            f"--precision {precision}"
        )
    change = round(figure - best, 4)
    return {metric: round(figure, 4), "fp32": best, "change": change, "pictures": len(samples), "truth": "fp32"}


def mean_iou(pairs: Any, model: Model) -> float:
    """Mean, over the classes that either side has, of the pixels with a class on both sides by those on one of them.

    Args:
        pairs: of `Segmentation`, what is measured and the truth.
        model: for its classes.
    """
    both, either = np.zeros(model.classes + 1, np.int64), np.zeros(model.classes + 1, np.int64)
    for got, truth in pairs:
        ours, theirs = (each.whole for each in (got, truth))
        for (_, mine), (_, other) in zip(ours.strips(), theirs.strips(), strict=True):
            same = np.bincount(mine[mine == other].ravel(), minlength=len(both))[: len(both)]
            counts = [np.bincount(side.ravel(), minlength=len(both))[: len(both)] for side in (mine, other)]
            both += same
            either += counts[0] + counts[1] - same
    return float(np.mean(both[either > 0] / either[either > 0]))


def mean_error(pairs: Any) -> float:
    """Mean, over the pixels of all images, of the difference from the truth by the distance; pairs of `DepthMap`."""
    total, pixels = 0.0, 0
    for got, truth in pairs:
        for (_, ours), (_, theirs) in zip(got.whole.strips(), truth.whole.strips(), strict=True):
            total += float((np.abs(ours - theirs) / np.maximum(theirs, 1e-3)).sum(dtype=np.float64))
            pixels += ours.size
    return total / pixels


def _predict(run: Runs, model: Model, sample: Sample) -> Segmentation | DepthMap:
    task = image_task(model)
    model_input, plan = preprocess(sample.image.image_hwc, model)
    outputs = {name: output[0] for name, output in run.infer(model_input[None]).items()}
    prediction: Segmentation | DepthMap = task.postprocess(outputs, model, plan=plan, options=task.options())
    return prediction
