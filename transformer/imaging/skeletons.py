"""Keypoints on an image, and the lines between those of a person."""

from collections.abc import Sequence

import cv2
import numpy as np

from transformer.imaging.drawing import COLOURS, line_thickness
from transformer.imaging.letterbox import Image
from transformer.imaging.nms import Floats

# Keypoints of a person as COCO has them (person_keypoints of its annotations), and its lines by their indices.
PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
PERSON_LINES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
_WHITE = (255, 255, 255)


def draw_skeletons(
    image_hwc: Image, keypoints: Floats, *, lines: Sequence[tuple[int, int]], least_visibility: float
) -> None:
    """Draw the visible keypoints of each object, each in a colour of its own, and the lines between them.

    The image is changed.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        keypoints: `(N, K, 3)`, x, y in pixels of `image_hwc` and visibility.
        lines: pairs of keypoints.
        least_visibility: keypoints below it are left out, and those of a broken model, which are no numbers.
    """
    thickness = line_thickness(image_hwc)
    for points in keypoints:
        visible = np.isfinite(points).all(axis=1) & (points[:, 2] >= least_visibility)
        places = np.where(visible[:, None], points[:, :2], 0).round().astype(np.int32)
        for one, other in lines:
            if visible[one] and visible[other]:
                colour = COLOURS[other % len(COLOURS)]
                cv2.line(image_hwc, places[one].tolist(), places[other].tolist(), colour, thickness, cv2.LINE_AA)
        for index in np.nonzero(visible)[0]:
            place = places[index].tolist()
            cv2.circle(image_hwc, place, 2 * thickness + 1, _WHITE, -1, cv2.LINE_AA)
            cv2.circle(image_hwc, place, 2 * thickness, COLOURS[index % len(COLOURS)], -1, cv2.LINE_AA)
