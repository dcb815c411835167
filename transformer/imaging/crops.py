"""Parts of an image: upright boxes, cut as in Roboflow's workflows, and rotated ones."""

import cv2
import numpy as np

from transformer.imaging.letterbox import Image
from transformer.imaging.nms import Floats
from transformer.imaging.rotated_boxes import enclose, to_canonical, to_corners

_LONGEST_SIDE_PX = 2**15 - 1  # of an image that OpenCV rotates


def cut(image_hwc: Image, box_xyxy: Floats) -> Image:
    """The pixels of a box, whose sides are rounded: a view; without pixels where nothing is left of it.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        box_xyxy: `(4,)`, pixels; what lies outside of the image is left out, and numbers that are none count as 0.
    """
    height, width = image_hwc.shape[:2]
    x1, y1, x2, y2 = np.clip(np.nan_to_num(box_xyxy.round()), 0, (width, height, width, height)).astype(int)
    return image_hwc[y1:y2, x1:x2]


def cut_rotated(image_hwc: Image, box_cxcywhr: Floats) -> Image:
    """The pixels of a rotated box, turned upright by at most 45 degrees; what is outside of the image repeats its edge.

    Which of its sides an object has below, no box says: the least turn is taken.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        box_cxcywhr: `(5,)`: centre, width and height in pixels, and the angle of the width in radians.
    """
    size_wh = image_hwc.shape[1::-1]
    (upright,) = enclose(to_corners(box_cxcywhr[None]), size_wh)
    region = cut(image_hwc, upright)
    if not region.size or max(region.shape) > _LONGEST_SIDE_PX:
        return region
    cx, cy, width, height, angle = to_canonical(box_cxcywhr[None])[0].astype(float)
    if angle > np.pi / 4:
        width, height, angle = height, width, angle - np.pi / 2
    longest = float(np.hypot(*size_wh))
    crop_wh = round(min(width, longest)), round(min(height, longest))
    if 0 in crop_wh:
        return image_hwc[:0, :0]
    # From the middle of a pixel of the crop to that of the region.
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    axes *= np.array([width, height]) / crop_wh
    origin = np.array([cx, cy]) - upright[:2].round() - 0.5 + axes @ ((1 - np.array(crop_wh)) / 2)
    matrix = np.column_stack([axes, origin])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(region, matrix, crop_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)
