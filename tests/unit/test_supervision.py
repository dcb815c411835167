"""What supervision reads from responses with keypoints and with rotated boxes, by the lines of docs/tasks.md."""

import json
from typing import Any

import numpy as np
import pytest

from tests.support.described import FUSED
from tests.support.pages import ROOT, all_blocks
from transformer.tasks.obb import OrientedBoxes
from transformer.tasks.objects import Detections
from transformer.tasks.pose import Poses

IMAGE = np.zeros((100, 200, 3), np.uint8)
SCORES = np.array([0.9, 0.8], np.float32)
CLASS_IDS = np.array([1, 0])
BOXES = np.array([[10, 10, 50, 60], [100, 20, 150, 90]], np.float32)
KEYPOINTS = np.array([[[12, 20, 0.9], [40, 50, 0.0]], [[110, 30, 0.8], [140, 80, 0.7]]], np.float32)
ROTATED = np.array([[60, 50, 40, 20, 0.5], [150, 50, 30, 10, -0.3]], np.float32)


def read(heading: str, prediction: Detections) -> dict[str, Any]:
    """The names that the lines below a heading give a value."""
    model: Any = FUSED
    if heading == "Pose":
        model = type(FUSED)(**{**vars(FUSED), "facts": {"kpt_shape": [2, 3], "kpt_names": ["a", "b"]}})
    document = {"image": {"width": 200, "height": 100}, **prediction.to_json(model)}
    names: dict[str, Any] = {"response": json.loads(json.dumps(document)), "image": IMAGE}
    (block,) = [
        block
        for block in all_blocks()
        if (block.page, block.heading) == ("docs/tasks.md", heading) and block.language == "python"
    ]
    assert (ROOT / block.page).exists()
    exec(block.text, names)  # noqa: S102 - the page's own lines
    return names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("count", [0, 2])
def test_keypoints_are_at_their_index(count: int) -> None:
    poses = Poses(BOXES[:count], SCORES[:count], CLASS_IDS[:count], keypoints=KEYPOINTS[:count])
    names = read("Pose", poses)
    points, detections = names["key_points"], names["detections"]
    assert len(points) == len(detections) == count
    if count:
        np.testing.assert_allclose(points.xy, KEYPOINTS[..., :2], atol=1e-3)
        np.testing.assert_allclose(points.keypoint_confidence, KEYPOINTS[..., 2], atol=1e-6)
        np.testing.assert_allclose(points.detection_confidence, SCORES, atol=1e-6)
        assert points.data["class_name"].tolist() == ["dog", "cat"]
        np.testing.assert_allclose(detections.xyxy, BOXES, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("count", [0, 2])
def test_rotated_boxes_are_drawn_and_no_masks(count: int) -> None:
    boxes = OrientedBoxes.within((200, 100), ROTATED[:count], scores=SCORES[:count], class_ids=CLASS_IDS[:count])
    names = read("Oriented boxes", boxes)
    detections = names["detections"]
    assert detections.mask is None
    assert len(detections) == count
    np.testing.assert_allclose(detections.data["xyxyxyxy"], boxes.corners, atol=1e-3)
    assert names["annotated"].any() == bool(count)
    if count:
        np.testing.assert_allclose(detections.xyxy, boxes.boxes_xyxy, atol=1e-3)
