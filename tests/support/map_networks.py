"""Networks of Ultralytics that return maps, built with random weights; needs torch and ultralytics."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from export.proof.drawn_images import draw_images


def build_network(name: str, folder: Path, *, side: int = 320) -> Path:
    """A checkpoint with outputs worth comparing: its normalisation fits the images, its outputs spread.

    Args:
        name: `yolo26n-sem` or `yolo26n-depth`.
        folder: for the file.
        side: of the images that it is adapted to.
    """
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics import YOLO  # noqa: PLC0415 - as above

    path = folder / f"{name}.pt"
    if path.exists():
        return path
    torch.manual_seed(0)
    yolo = YOLO(f"{name}.yaml")
    network: Any = yolo.model
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    images = np.stack([cv2.resize(image.image_hwc, (side, side)) for image in draw_images()])
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255
    head = network.model[-1]
    last = head.classifier[-1] if name.endswith("sem") else head.head[-1]
    seen: list[Any] = []
    hook = last.register_forward_hook(lambda _layer, _input, output: seen.append(output))
    with torch.no_grad():
        network.train()
        network(batch)
        network.eval()
        seen.clear()
        network(batch)
        # Each class is the best somewhere; distances are from decimetres to some 50 metres.
        mean, spread = seen[0].mean((0, 2, 3)), seen[0].std((0, 2, 3)) * (1 if name.endswith("sem") else 1.6)
        last.weight.div_(spread[:, None, None, None])
        last.bias.sub_(mean).div_(spread)
        if name.endswith("depth"):
            last.bias.add_(1)
    hook.remove()
    yolo.save(path)
    return path
