"""What Ultralytics' own functions make of rotated boxes; needs torch and ultralytics."""

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.utils.metrics import batch_probiou
from ultralytics.utils.nms import TorchNMS

from tests.reference.crowds import CROWDS, FILE, Crowd, draw_crowd


def write_kept() -> None:
    """Write which boxes of each crowd stay."""
    kept = {str(seed): keep(draw_crowd(seed)).astype(np.int16) for seed in range(CROWDS)}
    np.savez_compressed(FILE, allow_pickle=False, **kept)
    print(f"rotated-crowds: {sum(map(len, kept.values()))} boxes stay")


def keep(crowd: Crowd) -> NDArray[np.int64]:
    """Indices of the boxes that stay, best first: as `non_max_suppression` calls it, classes 7680 pixels apart."""
    boxes = torch.from_numpy(crowd.boxes.copy())
    boxes[:, :2] += torch.from_numpy(crowd.class_ids).float()[:, None] * 7680
    kept = TorchNMS.fast_nms(boxes, torch.from_numpy(crowd.scores), crowd.iou, iou_func=batch_probiou)
    return np.asarray(kept.numpy(), np.int64)
