"""The cost of less than FP32: the mean average precision of the task beside that of FP32, on the same images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from export.errors import ExportError
from export.proof.calibration import Sample
from export.proof.drawn_images import NamedImage
from export.proof.labels import take, to_objects
from export.proof.metrics import NAMES as METRICS
from export.proof.metrics import measure_precision
from export.proof.parity import preprocess
from export.proof.predictions import select_all
from transformer.tasks import image_task
from transformer.tasks.objects import Detections
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
        objects: by image.
        sizes_wh: of each image.
        map50_95: of FP32, by the metric of the task.
    """

    kind: Literal["labels", "fp32"]
    objects: Mapping[str, Detections]
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
        name, size_wh = sample.image.name, (sample.image.image_hwc.shape[1], sample.image.image_hwc.shape[0])
        found[name] = _detect(fp32, model, sample.image)
        sizes_wh[name] = size_wh
        labels[name] = to_objects(sample.labels or (), model, size_wh)
    kind: Literal["labels", "fp32"] = "labels" if any(each.objects for each in labels.values()) else "fp32"
    if kind == "fp32":
        labels = {name: take(objects, objects.scores >= _SURE) for name, objects in found.items()}
    if not any(each.objects for each in labels.values()):
        raise ExportError(
            f"precision: FP32 finds nothing on {len(samples)} images, expected something to compare; next: "
            "--calibration with images of what the model knows"
        )
    return Truth(kind, labels, sizes_wh, measure_precision(found, labels, sizes_wh, model))


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
        found[image.name] = _detect(run, model, image)
    map50_95 = measure_precision(found, truth.objects, truth.sizes_wh, model)
    metric = METRICS[str(model.task)]
    change = map50_95 - truth.map50_95
    limit = LIMITS[precision]
    if not change >= -limit:
        source = "the labels" if truth.kind == "labels" else "what FP32 finds"
        raise ExportError(
            f"{precision}: mAP50-95 ({metric}) against {source}: got {map50_95:.4f}, expected at most {limit} below "
            f"FP32's {truth.map50_95:.4f} ({len(samples)} images); next: more images of what the model will see in "
            f"--calibration, or omit --precision {precision}"
        )
    return {
        "metric": metric,
        "map50_95": round(map50_95, 4),
        "fp32": round(truth.map50_95, 4),
        "change": round(change, 4),
        "pictures": len(samples),
        "truth": truth.kind,
    }


def _detect(run: Runs, model: Model, image: NamedImage) -> Detections:
    pixels, plan = preprocess(image, model)
    outputs = {name: output[0] for name, output in run.infer(pixels[None]).items()}
    found: Detections = image_task(model).postprocess(
        outputs, model, plan=plan, options=select_all(model, confidence=_LOWEST)
    )
    return found
