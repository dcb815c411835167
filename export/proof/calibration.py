"""Images to calibrate int8 with and to measure precisions on."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from export.errors import ExportError
from export.proof.average_precision import Rows, read_rows
from export.proof.drawn_images import Image, NamedImage
from export.proof.labels import to_pixels
from transformer.triton.model import Model

ENOUGH = 100  # fewer miss ranges that other images reach

_LINES = {
    "detect": "class cx cy w h",
    "segment": "class x y x y x y ...",
    "pose": "class cx cy w h x y [v] ...",
    "obb": "class x y x y x y x y",
}
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Sample:
    """An image, and its labels where they are known.

    Attributes:
        image: the image.
        labels: numbers in pixels, the class id last: x1, y1, x2, y2; of the task segment a polygon; of pose the box and
            its keypoints; of obb the corners.
    """

    image: NamedImage
    labels: Rows | None


class Folder(Sequence[Sample]):
    """The images of a folder, each read when it is needed: many do not fit into memory.

    With `images` and `labels` inside it is a data set in YOLO's layout, else it is a folder of images.
    """

    def __init__(self, folder: Path) -> None:
        """List the images, and read none.

        Raises:
            ExportError: there is no image.
        """
        self._images = folder / "images" if (folder / "images").is_dir() else folder
        self._labels = folder / "labels" if (folder / "labels").is_dir() and self._images != folder else None
        self._paths = sorted(path for path in self._images.rglob("*") if path.suffix.lower() in _SUFFIXES)
        self._task, self._kpt_shape = "detect", (0, 0)
        if not self._paths:
            raise ExportError(
                f"--calibration {folder}: got no image, expected {ENOUGH} or more of what the model will see "
                "(JPEG, PNG, ...), or a data set with images/ and labels/"
            )

    def labelled_for(self, model: Model) -> "Folder":
        """The same with labels that are read as those of the model's task."""
        folder = copy(self)
        folder._task = str(model.task)
        if model.task == "pose":
            folder._kpt_shape = model.facts["kpt_shape"]
        return folder

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices
        path = self._paths[index]
        image_hwc = _read(path)
        name = path.relative_to(self._images)
        labels = None
        if self._labels is not None:
            size_wh = image_hwc.shape[1], image_hwc.shape[0]
            labels = self._read_labels(self._labels / name.with_suffix(".txt"), size_wh)
        return Sample(NamedImage(name.as_posix(), image_hwc), labels)

    def _read_labels(self, path: Path, size_wh: tuple[int, int]) -> Rows:
        try:
            return [to_pixels(row, size_wh, task=self._task, kpt_shape=self._kpt_shape) for row in read_rows(path)]
        except ValueError as exc:
            raise ExportError(
                f"{path}: got no labels of the task {self._task} ({exc}), expected lines of: {_LINES[self._task]}, as "
                "fractions"
            ) from exc

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _read(path: Path) -> Image:
    image_bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright
    if image_bgr is None:
        raise ExportError(f"{path}: got no image that can be read, expected one; next: correct or remove it")
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
