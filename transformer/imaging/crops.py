"""Parts of an image, cut out as Roboflow's workflows do (`inference` 1.8, block `dynamic_crop`)."""

import numpy as np

from transformer.imaging.letterbox import Image
from transformer.imaging.nms import Floats


def cut(image_hwc: Image, box_xyxy: Floats) -> Image:
    """The pixels of a box, whose sides are rounded: a view; without pixels where nothing is left of it.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        box_xyxy: `(4,)`, pixels; what lies outside of the image is left out, and numbers that are none count as 0.
    """
    height, width = image_hwc.shape[:2]
    x1, y1, x2, y2 = np.clip(np.nan_to_num(box_xyxy.round()), 0, (width, height, width, height)).astype(int)
    return image_hwc[y1:y2, x1:x2]
