"""Images to calibrate int8 with and to measure precisions on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from export.errors import ExportError
from export.proof.average_precision import Rows, read_yolo_labels
from export.proof.drawn_images import Image, NamedImage

ENOUGH = 100  # fewer miss ranges that other images reach

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Sample:
    """An image, and its labels where they are known: x1, y1, x2, y2 in pixels, class id."""

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
        if not self._paths:
            raise ExportError(
                f"--calibration {folder}: got no image, expected {ENOUGH} or more of what the model will see "
                "(JPEG, PNG, ...), or a data set with images/ and labels/"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices
        path = self._paths[index]
        image_hwc = _read(path)
        name = path.relative_to(self._images)
        labels = None
        if self._labels is not None:
            size_wh = image_hwc.shape[1], image_hwc.shape[0]
            labels = _read_labels(self._labels / name.with_suffix(".txt"), size_wh)
        return Sample(NamedImage(name.as_posix(), image_hwc), labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _read(path: Path) -> Image:
    image_bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright
    if image_bgr is None:
        raise ExportError(f"{path}: got no image that can be read, expected one; next: correct or remove it")
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _read_labels(path: Path, size_wh: tuple[int, int]) -> Rows:
    try:
        return read_yolo_labels(path, size_wh)
    except ValueError as exc:
        raise ExportError(f"{path}: got no labels ({exc}), expected lines of: class cx cy w h, as fractions") from exc
