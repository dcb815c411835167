"""Computes the references of maps again; needs torch and ultralytics, and no weights.

What is compared is what happens before the network and after it.
"""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.models.yolo.depth import DepthPredictor
from ultralytics.models.yolo.semantic import SemanticSegmentationPredictor

from tests.reference.maps import CHOSEN, CLASSES, FOLDER, SIDE, SIZES_WH, UNIT_M, MapCase, draw_gradients, write_cases


def write_maps() -> None:
    """Invented outputs of a model for images of many sizes, and what the predictors of Ultralytics make of them."""
    random = np.random.default_rng(20)
    cases = []
    for size_wh in SIZES_WH:
        image = draw_gradients(size_wh)
        for task, predictor in (("semantic", SemanticSegmentationPredictor), ("depth", DepthPredictor)):
            forms = (False, True) if task == "semantic" else (False,)
            cases += [_make_case(task, predictor, image, random, is_free=is_free) for is_free in forms]
    write_cases(cases)
    print(f"maps: {len(cases)} cases, {(FOLDER / 'maps.npz').stat().st_size} bytes")


def _make_case(task: str, kind: Any, image: Any, random: np.random.Generator, *, is_free: bool) -> MapCase:
    """One image, in the square of the model or, where `is_free`, in the smallest rectangle."""
    predictor = kind(overrides={"imgsz": SIDE, "rect": True, "device": "cpu"})
    predictor.imgsz = [SIDE, SIDE]
    names = {index: str(index) for index in range(CLASSES)}
    predictor.model = SimpleNamespace(names=names, stride=32, format="onnx", dynamic=is_free)
    predictor.batch = [["image"]]
    bgr = np.ascontiguousarray(image[..., ::-1])
    (boxed,) = predictor.pre_transform([bgr])
    height, width = boxed.shape[:2]
    smooth = cv2.GaussianBlur(random.random((height, width), np.float32), (0, 0), 4)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    if task == "depth":
        output = np.rint((0.5 + 20 * smooth) / UNIT_M).astype(np.float32) * np.float32(UNIT_M)
    else:
        output = np.minimum(smooth * CLASSES, CLASSES - 1).astype(np.uint8)
    planes = torch.zeros(1, 3, height, width)

    def run(classes: list[int] | None = None) -> Any:
        predictor.args.classes = classes
        predictions = torch.from_numpy(output)[None, None] if task == "depth" else torch.from_numpy(output)[None]
        (result,) = predictor.postprocess(predictions, planes, [bgr])
        return np.asarray((result.depth if task == "depth" else result.semantic_mask).data)

    return MapCase(
        image_hwc=image,
        task=task,
        input_hwc=np.ascontiguousarray(boxed[..., ::-1]),
        output=output,
        expected=run(),
        expected_of_chosen=run(list(CHOSEN)) if task == "semantic" else None,
    )
