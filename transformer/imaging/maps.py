"""Maps, a value for each pixel, from the size of a model to that of the image: pure functions on arrays.

A map of the original image is large where the map of the model is not, so it is made in strips of rows. The arithmetic
is that of Ultralytics 8.4 and of PyTorch's `interpolate`, which it calls, to the rounding of FP32.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PayloadTooLarge

Map = NDArray[Any]

MAX_STACK_BYTES = 2**28  # of a tensor of maps: what Triton's response may have
_STRIP_PIXELS = 2**20


class Enlarged(ABC):
    """A map in the size of the image; nothing of it is computed before it is requested.

    Attributes:
        image_wh: size of the image.
    """

    def __init__(self, map_hw: Map, image_wh: tuple[int, int]) -> None:
        """Of `map_hw`, `(height, width)` in any size, for an image of size `image_wh`."""
        self._map = map_hw
        self.image_wh = image_wh

    @abstractmethod
    def strip(self, rows: slice) -> Map:
        """Rows of the image."""

    def strips(self) -> Iterator[tuple[slice, Map]]:
        """All rows of the image, some at a time."""
        width, height = self.image_wh
        rows = max(_STRIP_PIXELS // width, 1)
        for first in range(0, height, rows):
            some = slice(first, min(first + rows, height))
            yield some, self.strip(some)


class Nearest(Enlarged):
    """A map whose pixels are repeated, or left out: for values that have no mean, such as classes."""

    def __init__(self, map_hw: Map, image_wh: tuple[int, int]) -> None:
        super().__init__(map_hw, image_wh)
        self._rows, self._columns = _nearest(map_hw.shape[0], image_wh[1]), _nearest(map_hw.shape[1], image_wh[0])

    def strip(self, rows: slice) -> Map:
        """Rows of the image."""
        sources, places = np.unique(self._rows[rows], return_inverse=True)
        return np.take(self._map[sources], self._columns, axis=1)[places]

    def count(self, values: int) -> NDArray[np.int64]:
        """How many pixels of the image each value from 0 to `values` - 1 has; larger ones are not counted.

        Each pixel of the map stands for a rectangle of the image, whose sides are counted instead of its pixels.
        """
        heights = np.bincount(self._rows, minlength=self._map.shape[0])
        widths = np.bincount(self._columns, minlength=self._map.shape[1])
        counts = np.zeros(values, np.int64)
        for row, height in zip(self._map, heights, strict=True):
            if height:
                counts += height * np.bincount(row, widths, minlength=values).astype(np.int64)[:values]
        return counts


class Bilinear(Enlarged):
    """A map whose pixels are interpolated, its corners those of the image (`align_corners=True`)."""

    def __init__(self, map_hw: NDArray[np.float32], image_wh: tuple[int, int]) -> None:
        super().__init__(map_hw, image_wh)
        self._upper, self._lower, self._down = _bilinear(map_hw.shape[0], image_wh[1])
        self._left, self._right, self._across = _bilinear(map_hw.shape[1], image_wh[0])

    def strip(self, rows: slice) -> NDArray[np.float32]:
        """Rows of the image."""
        upper, lower, down = self._upper[rows], self._lower[rows], self._down[rows, None]
        sources, places = np.unique(np.concatenate([upper, lower]), return_inverse=True)
        lines = self._map[sources]
        wide = _mix(np.take(lines, self._left, axis=1), np.take(lines, self._right, axis=1), self._across)
        return _mix(wide[places[: len(upper)]], wide[places[len(upper) :]], down)


def cut_padding(map_hw: Map, image_wh: tuple[int, int]) -> Map:
    """The part of a map that shows the image, without the padding of a letterbox (`utils.ops.scale_masks`).

    Args:
        map_hw: `(height, width)` of the model's input.
        image_wh: size of the original image.
    """
    height, width = map_hw.shape
    gain = min(height / image_wh[1], width / image_wh[0])
    seen_w, seen_h = max(round(image_wh[0] * gain), 1), max(round(image_wh[1] * gain), 1)
    left, top = round((width - seen_w) / 2 - 0.1), round((height - seen_h) / 2 - 0.1)
    return map_hw[top : top + seen_h, left : left + seen_w]


def stack(maps: Sequence[Enlarged], *, dtype: Any, fill: float) -> Map:
    """Maps of several images in one array `(images, height, width)` of the largest; the rest of it is `fill`.

    Raises:
        PayloadTooLarge: it would have more than `MAX_STACK_BYTES`.
    """
    width, height = (max(sides) for sides in zip(*(each.image_wh for each in maps), strict=True))
    size_bytes = len(maps) * height * width * np.dtype(dtype).itemsize
    if size_bytes > MAX_STACK_BYTES:
        raise PayloadTooLarge(
            f"a tensor of {len(maps)} maps of {width}x{height} has {size_bytes} bytes, over the limit of"
            f" {MAX_STACK_BYTES}; send fewer images, or smaller ones, in one request"
        )
    stacked = np.full((len(maps), height, width), fill, dtype)
    for target, each in zip(stacked, maps, strict=True):
        for rows, values in each.strips():
            target[rows, : each.image_wh[0]] = values
    return stacked


def _mix(one: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    return one * (1 - share) + other * share


def _nearest(size: int, target: int) -> NDArray[np.int64]:
    """For each of `target` places the one of `size` places that it is from."""
    places = np.floor(np.arange(target, dtype=np.float32) * (np.float32(size) / np.float32(target)))
    sources: NDArray[np.int64] = np.minimum(places.astype(np.int64), size - 1)
    return sources


def _bilinear(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `target` places its two neighbours among `size` places, and the share of the second."""
    scale = np.float32(size - 1) / np.float32(target - 1) if target > 1 else np.float32(0)
    places = np.arange(target, dtype=np.float32) * scale
    first = np.minimum(places.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), np.clip(places - first.astype(np.float32), 0, 1)
