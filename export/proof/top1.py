"""The cost of less than FP32 for a classifier: how often its best class is right, beside FP32, on the same images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.errors import ExportError
from export.graph import compatibility
from export.graph.int8 import quantise
from export.proof.calibration import Sample
from export.proof.drawn_images import draw_images
from export.proof.low_precision import Lowering
from export.proof.precision import LIMITS, Precision, Runs, Track
from export.proof.session import Session
from export.writer.profiles import INT8, ONNX
from transformer.tasks import describe
from transformer.tasks.classify import CLASSIFY
from transformer.triton.model import Model


class ClassifierLowering(Lowering):
    """Makes and tries a classifier in less than FP32."""

    def measure(self, session: Session, calibration: Sequence[Sample] | None, *, track: Track) -> dict[str, Any]:
        """Quantise where that is wanted, and measure what each wanted precision costs; as `Lowering.measure`."""
        if not self._wanted:
            return {}
        model = describe(self._config, version="0")
        samples = calibration or [Sample(image, None) for image in draw_images()]
        best = _find_best(session, model, samples, track=track, what="fp32")
        truth = _read_labels(samples, model)
        costs: dict[str, Any] = {}
        for precision in self._wanted:
            if precision == "int8":
                inputs = (
                    _prepare(samples[index], model)[None] for index in track(range(len(samples)), "calibrate int8")
                )
                self._graphs[INT8] = quantise(self._graphs[ONNX], inputs)
                compatibility.check(self._graphs[INT8])
            run = self._load(INT8 if precision == "int8" else ONNX)
            found = _find_best(run, model, samples, track=track, what=precision)
            costs[precision] = compare(precision, found, best, truth)
        return costs


def compare(
    precision: Precision, found: Sequence[int], fp32: Sequence[int], truth: Sequence[int] | None
) -> dict[str, Any]:
    """The entry of the manifest for a precision.

    Args:
        precision: that was measured.
        found: its best class of each image.
        fp32: that of FP32.
        truth: what is right; None without labels: then FP32 is.

    Raises:
        ExportError: it costs more than its limit.
    """
    expected = fp32 if truth is None else truth
    top1, top1_fp32 = (float(np.mean(np.equal(classes, expected))) for classes in (found, fp32))
    change, limit = top1 - top1_fp32, LIMITS[precision]
    if not change >= -limit:
        source = "what FP32 finds" if truth is None else "the labels"
        raise ExportError(
            f"{precision}: top-1 against {source}: got {top1:.4f}, expected at most {limit} below FP32's "
            f"{top1_fp32:.4f} ({len(found)} images); next: more images of what the model will see in --calibration, or "
            f"omit --precision {precision}"
        )
    return {
        "top1": round(top1, 4),
        "fp32": round(top1_fp32, 4),
        "change": round(change, 4),
        "pictures": len(found),
        "truth": "fp32" if truth is None else "labels",
    }


def _find_best(run: Runs, model: Model, samples: Sequence[Sample], *, track: Track, what: str) -> list[int]:
    output = model.outputs[0].name
    return [
        int(run.infer(_prepare(samples[index], model)[None])[output][0].argmax())
        for index in track(range(len(samples)), f"measure {what}")
    ]


def _prepare(sample: Sample, model: Model) -> Any:
    image_hwc = sample.image.image_hwc
    return CLASSIFY.preprocess(image_hwc, model, size_wh=(image_hwc.shape[1], image_hwc.shape[0]))[0]


def _read_labels(samples: Sequence[Sample], model: Model) -> list[int] | None:
    """The class that each image's folder is named after; None where one has none."""
    ids = {name: class_id for class_id, name in reversed(list(model.names.items()))}
    folders = [samples[index].image.name.rpartition("/")[0].split("/")[-1] for index in range(len(samples))]
    labels = [ids.get(folder) for folder in folders]
    return None if None in labels else [label for label in labels if label is not None]
