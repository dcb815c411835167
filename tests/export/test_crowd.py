"""A crowd, found through the whole stack, compared with Ultralytics' own `predict` of the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.__main__ import main
from tests.reference.detections import compare
from tests.support.described import FUSED
from tests.support.stack import Stack, start_stack
from transformer.imaging.letterbox import fit
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection
from transformer.triton.model import TensorMetadata

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ultralytics"),
]

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = SHARED / "data" / "weights" / "yolov8n.pt"
CROWD = SHARED / "cases" / "crowd" / "mosaic6.png"
BARE = replace(FUSED, inputs=(TensorMetadata("images", "FP32", (-1, 3, -1, -1)),))
needs_shared = pytest.mark.skipif(not (WEIGHTS.exists() and CROWD.exists()), reason="needs ../shared")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("crowd")
    for interface in ("fused", "ultralytics"):
        arguments = ["ultralytics", interface, str(WEIGHTS), "--interface", interface]
        assert main([*arguments, "--repository", str(folder / "repository")]) == 0
    with start_stack(folder / "repository", folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def yolo() -> Any:
    from ultralytics import YOLO  # noqa: PLC0415 - only in the environment of `make test-export`

    return YOLO(WEIGHTS)


@needs_shared
@pytest.mark.parametrize("model", ["fused", "ultralytics"])
@pytest.mark.parametrize(
    ("query", "settings", "reached"),
    [
        ({}, {}, {}),
        ({"max_detections": 100}, {"max_det": 100}, {"max_detections": 100}),
        ({"confidence": 0.01, "max_detections": 1000}, {"conf": 0.01, "max_det": 1000}, {}),
        ({"confidence": 0.001, "max_detections": 1000}, {"conf": 0.001, "max_det": 1000}, {"max_detections": 1000}),
        ({"iou": 0.3, "max_detections": 1000}, {"iou": 0.3, "max_det": 1000}, {}),
        # Among the weakest of the crowd: a cut before the filter would leave none of them.
        ({"classes": "traffic light,25", "confidence": 0.01}, {"classes": [9, 25], "conf": 0.01}, {}),
        (
            {"classes": "9", "confidence": 0.01, "max_detections": 5},
            {"classes": [9], "conf": 0.01, "max_det": 5},
            {"max_detections": 5},
        ),
    ],
)
def test_crowd_is_found_as_ultralytics_finds_it(
    stack: Stack, yolo: Any, model: str, query: dict[str, Any], settings: dict[str, Any], reached: dict[str, int]
) -> None:
    expected = yolo.predict(CROWD, verbose=False, **settings)[0].boxes.data.tolist()
    headers = {"Content-Type": "image/png"}
    response = stack.http.post(f"/predict/{model}", params=query, content=CROWD.read_bytes(), headers=headers)
    document = response.raise_for_status().json()
    found = [[*row["box"].values(), row["confidence"], row["class_id"]] for row in document["predictions"]]
    assert found
    assert compare(found, expected, box_px=0.05, score=1e-4) == []
    assert document["limits_reached"] == reached
    if not query:
        assert len(found) == 199


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("classes", [None, [1], [0, 2]])
def test_selection_is_that_of_ultralytics_on_heads_of_any_numbers(seed: int, classes: list[int] | None) -> None:
    """Boxes of few sizes at few places, so that overlaps of just `iou` and equal scores are many."""
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    import torchvision  # noqa: F401, PLC0415 - where it is imported, Ultralytics takes its NMS
    from ultralytics.utils.nms import non_max_suppression  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    head = np.zeros((4 + 3, 2000), np.float32)
    head[:2] = rng.integers(4, 60, (2, 2000)) * (1 if seed % 2 else 0.7)
    head[2:4] = rng.choice([0, 3, 7, 10, 20], (2, 2000))
    head[4:] = rng.integers(0, 33, (3, 2000)) / 32
    settings: dict[str, Any] = {
        "conf_thres": 0.25,
        "iou_thres": float(rng.choice([0.1, 0.3, 0.5, 0.7])),
        "max_det": 500,
    }
    (expected,) = non_max_suppression(torch.from_numpy(head[None]), classes=classes, **settings)
    selection = Selection(0.25, settings["iou_thres"], 500, None if classes is None else frozenset(classes))
    plan = fit((64, 64), (64, 64), stride=None)
    found = DETECT.postprocess({"output0": head}, BARE, plan=plan, options=selection)
    np.testing.assert_array_equal(found.scores, expected[:, 4].numpy())
    np.testing.assert_array_equal(found.class_ids, expected[:, 5].numpy())
    np.testing.assert_allclose(found.boxes_xyxy, expected[:, :4].clamp(0, 64).numpy(), atol=1e-5)
    assert len(found.scores) > 20
