"""A crowd, asked through the whole stack, against Ultralytics' own `predict` of the same weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from tests.reference.detections import compare
from tests.support.stack import Stack, start_stack

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ultralytics"),
]

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = SHARED / "data" / "weights" / "yolov8n.pt"
CROWD = SHARED / "cases" / "crowd" / "mosaic6.png"
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
def test_a_crowd_is_what_ultralytics_finds(
    stack: Stack, yolo: Any, model: str, query: dict[str, Any], settings: dict[str, Any], reached: dict[str, int]
) -> None:
    expected = yolo.predict(CROWD, verbose=False, **settings)[0].boxes.data.tolist()
    headers = {"Content-Type": "image/png"}
    reply = stack.http.post(f"/predict/{model}", params=query, content=CROWD.read_bytes(), headers=headers)
    answer = reply.raise_for_status().json()
    found = [[*row["box"].values(), row["confidence"], row["class_id"]] for row in answer["predictions"]]
    assert found
    assert compare(found, expected, box_px=0.05, score=1e-4) == []
    assert answer["limits_reached"] == reached
    if not query:
        assert len(found) == 199
