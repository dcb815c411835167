"""Compute the references of segmentation; needs torch and ultralytics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from pycocotools import mask as coco

from tests.reference.segments import SegmentedImage, SegmentReference

_LOWEST_SCORE = 0.05  # of candidates that are kept
_STEP = 1 / 16  # of prototypes, so that they take little space


def write_segments(name: str, model: Any, images: Mapping[str, tuple[Path, bool]], **settings: Any) -> None:
    """Write a reference file.

    Args:
        name: of the file.
        model: `ultralytics.YOLO`.
        images: file, and whether its input is the smallest rectangle, by name.
        settings: of `predict`.
    """
    seen: list[Any] = []
    fixed = {"verbose": False, "device": "cpu", "retina_masks": True, **settings}
    done = []
    for path, rectangle in images.values():
        image = cv2.imread(str(path))
        model.predict(image, rect=rectangle, **fixed)  # makes the predictor
        infer = type(model.predictor).inference.__get__(model.predictor)

        def rounded(*args: Any, infer: Any = infer, **kwargs: Any) -> Any:
            seen[:] = _round(infer(*args, **kwargs))
            return [tuple(seen)]

        model.predictor.inference = rounded
        result = model.predict(image, rect=rectangle, **fixed)[0]
        del model.predictor.inference
        done.append(_describe(seen, result, image))
        print(f"{name}: {path.name}: {len(done[-1].rles)} masks")
    end2end = seen[0].shape[1] == 300
    made_by = f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, {settings}"
    chosen = settings["conf"], settings["max_det"]
    SegmentReference(made_by, end2end, len(model.names), *chosen, done).write(name)


def _round(outputs: Any) -> tuple[Any, Any]:
    """The head's output and the prototypes, in numbers that FP16 has."""
    head, prototypes = outputs[0][:2] if isinstance(outputs[0], tuple) else outputs[:2]
    return head.half().float(), (prototypes / _STEP).round().mul(_STEP).half().float()


def _describe(outputs: Any, result: Any, image: Any) -> SegmentedImage:
    head, prototypes = (output[0].numpy().astype(np.float16) for output in outputs)
    if len(head) != 300:
        head = head[:, head[4 : 4 + len(result.names)].max(axis=0) > _LOWEST_SCORE]
    masks = result.masks.data.byte().numpy() if result.masks is not None else []
    encoded = [coco.encode(np.asfortranarray(mask))["counts"].decode() for mask in masks]
    outlines = [points.astype(int).tolist() for points in result.masks.xy] if encoded else []
    height, width = image.shape[:2]
    rows = [[round(float(value), 5) for value in row] for row in result.boxes.data.tolist()]
    input_wh = (prototypes.shape[2] * 4, prototypes.shape[1] * 4)
    return SegmentedImage(head, prototypes, (width, height), input_wh, rows, encoded, outlines)
