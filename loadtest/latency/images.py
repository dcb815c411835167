"""Images of several sizes, made from the shipped ones; always the same, and too large to be kept in git."""

from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

_SHIPPED = Path(__file__).parents[1] / "pictures"
_MADE = Path(__file__).parents[2] / ".cache" / "loadtest-images"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
_QUALITY = 90

# Width x height, and the size of a tile: the scenes in turn fill the image.
SIZES = {
    (320, 320): 320,
    (640, 480): 320,
    (810, 1080): 540,
    (1280, 720): 640,
    (1920, 1080): 960,
    (4000, 3000): 2000,
}


def make(folder: Path = _MADE) -> Path:
    """The folder with the set; missing images are made."""
    for (width, height), tile in SIZES.items():
        path = folder / f"{width}x{height}.jpg"
        if path.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [cv2.resize(scene, (tile, tile), interpolation=cv2.INTER_CUBIC) for scene in _scenes()]
        pair, swapped = cv2.hconcat(scenes), cv2.hconcat(scenes[::-1])
        board = cv2.repeat(cv2.vconcat([pair, swapped]), height // (2 * tile) + 1, width // (2 * tile) + 1)
        _, encoded = cv2.imencode(".jpg", board[:height, :width], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        partial = path.with_suffix(".partial")
        partial.write_bytes(encoded.tobytes())
        partial.rename(path)
    return folder


def read(folder: Path) -> list[bytes]:
    """The images of a folder, encoded, in the order of their names; empty where it has none.

    Raises:
        OSError: the folder cannot be read.
    """
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]


def _scenes() -> list[NDArray[np.uint8]]:
    files = [(_SHIPPED / name).read_bytes() for name in ("digits.jpg", "digits-on-paper.jpg")]
    return [simplejpeg.decode_jpeg(file, colorspace="BGR") for file in files]
