"""Masks of Ultralytics with the outputs that they were made of, so that postprocessing is compared without torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class SegmentedImage:
    """What a network gave for an image, and what Ultralytics' `predict` made of it with `retina_masks=True`.

    Attributes:
        output0, output1: without batch dimension, FP16; of a head that needs NMS only candidates above 0.05.
        image_wh, input_wh: sizes of the image and of the network's input.
        rows: x1, y1, x2, y2, score and class of each detection, in pixels of the image.
        rles: COCO's RLE of each mask.
        outlines: `masks.xy`: the parts of a mask are joined to one ring.
    """

    output0: NDArray[np.float16]
    output1: NDArray[np.float16]
    image_wh: tuple[int, int]
    input_wh: tuple[int, int]
    rows: Sequence[Sequence[float]]
    rles: Sequence[str]
    outlines: Sequence[list[list[int]]]


@dataclass(frozen=True)
class SegmentReference:
    """Images of one network.

    Attributes:
        made_by: program, versions and settings.
        end2end: whether the head needs no NMS.
        classes: how many.
        confidence, max_detections: of the request.
        images: several sizes, so that prototypes are enlarged by 1, 2 and 4 before the padding is cut.
    """

    made_by: str
    end2end: bool
    classes: int
    confidence: float
    max_detections: int
    images: Sequence[SegmentedImage]

    def write(self, name: str) -> None:
        """Write `<name>.npz`, the same bytes for the same content."""
        arrays: dict[str, NDArray[Any]] = {}
        described = []
        for index, image in enumerate(self.images):
            fields = dict(vars(image))
            for output in ("output0", "output1"):
                arrays[f"{output}-{index}"] = fields.pop(output)
            described.append(fields)
        text = json.dumps({**vars(self), "images": described}, separators=(",", ":"))
        np.savez_compressed(FOLDER / f"{name}.npz", described=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def read_segment_reference(name: str) -> SegmentReference:
    """Read `<name>.npz`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        described = json.loads(file["described"].tobytes())
        images = [
            SegmentedImage(
                file[f"output0-{index}"],
                file[f"output1-{index}"],
                **{**fields, "image_wh": tuple(fields["image_wh"]), "input_wh": tuple(fields["input_wh"])},
            )
            for index, fields in enumerate(described["images"])
        ]
    return SegmentReference(**{**described, "images": images})
