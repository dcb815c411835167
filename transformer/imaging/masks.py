"""Masks of objects from prototypes: pure functions on arrays.

The steps are those of Ultralytics 8.4 with `retina_masks=True` (`utils.ops.process_mask_native`, `scale_masks`,
`crop_mask`): the logits of a mask are its coefficients times the prototypes; they are enlarged by 1, 2 or 4 so that the
padding of the letterbox falls on whole pixels, the padding is cut, the rest is enlarged to the image, and what is above
0 within the box is the mask. All of it is linear along one axis at a time: one matrix for each axis does it, for a few
rows of a box at a time, so that no more than the box of one object is ever in memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from transformer.imaging.letterbox import Letterbox
from transformer.imaging.nms import Floats

Points = NDArray[np.int32]  # (N, 2): x, y in pixels of the image
Bits = NDArray[np.uint8]  # 0 or 1

INPUT_PER_PROTOTYPE_PX = 4  # of Ultralytics' heads: prototypes have a quarter of the input's width and height
_FEWEST_POINTS = 3  # supervision takes no fewer
# Of a strip, whose logits stay in the cache: rows of the prototypes that it touches, and pixels.
_STRIP_CELLS, _SMALLEST_STRIP_PX, _LARGEST_STRIP_PX = 6, 2**14, 2**18


@dataclass(frozen=True)
class Mask:
    """The mask of one object, in pixels of the image.

    Attributes:
        size_wh: of the image.
        counts: `(N,)`, uncompressed RLE of COCO: lengths of runs in column order, the first one of 0.
        outlines: of each part, the largest first; none where they are not wanted. As OpenCV's `findContours` with
            `RETR_EXTERNAL` and `CHAIN_APPROX_SIMPLE` has them, which Ultralytics' `masks.xy` reads; holes are filled.
    """

    size_wh: tuple[int, int]
    counts: NDArray[np.int64]
    outlines: tuple[Points, ...] = ()

    @property
    def points(self) -> int:
        """Number of points of all outlines."""
        return sum(map(len, self.outlines))

    def rle(self) -> dict[str, Any]:
        """As COCO's tools have it: `size` is height and width, `counts` the compressed text."""
        width, height = self.size_wh
        compressed = coco.frPyObjects({"size": [height, width], "counts": self.counts}, height, width)
        return {"size": [height, width], "counts": compressed["counts"].decode()}

    def crop(self) -> tuple[Bits, tuple[int, int]]:
        """The mask within the smallest box around it: `(height, width)`, and x, y of the box's corner in the image."""
        height = self.size_wh[1]
        changes = np.cumsum(self.counts)[: len(self.counts) // 2 * 2].reshape(
            -1, 2
        )  # first and after the last of a run
        columns, rows = np.divmod(changes - (0, 1), height)
        if (columns[:, 0] == columns[:, 1]).all():
            top, bottom = int(rows[:, 0].min()), int(rows[:, 1].max()) + 1
        else:  # a run that goes on in the next column has all rows
            top, bottom = 0, height
        left, right = int(columns[0, 0]), int(columns[-1, 1]) + 1
        moved = (columns - left) * (bottom - top) + rows - top + (0, 1)
        counts = np.diff(moved.reshape(-1), prepend=0, append=(right - left) * (bottom - top)).astype(np.int64)
        bits = np.repeat(np.arange(len(counts)).astype(np.uint8) & 1, counts).reshape(right - left, bottom - top)
        return np.asarray(cv2.transpose(bits), np.uint8), (left, top)


class MaskSampler:
    """Makes the masks of the objects in one image."""

    def __init__(self, prototypes: NDArray[Any], plan: Letterbox) -> None:
        """Prepare the interpolation.

        Args:
            prototypes: `(M, height, width)`, FP32 or FP16, a quarter of the model's input.
            plan: how the image lies in the input.
        """
        self._prototypes = prototypes
        self._size_wh = plan.image_wh
        sides = zip(prototypes.shape[:0:-1], plan.resized_wh, plan.pad_xy, plan.image_wh, strict=True)
        factor = _enlargement(plan)
        self._columns, self._rows = (
            _Axis.of(size, factor, resized * factor // 4, pad * factor // 4, pixels)
            for size, resized, pad, pixels in sides
        )

    def area(self, box_xyxy: Floats) -> int:
        """Number of the image's pixels in a box: what `mask` takes time and memory for."""
        rows, columns = self._pixels(box_xyxy)
        return int((rows.stop - rows.start) * (columns.stop - columns.start))

    def mask(self, coefficients: Floats, box_xyxy: Floats, *, outlines: bool) -> Mask | None:
        """The mask of an object.

        Args:
            coefficients: `(M,)`.
            box_xyxy: `(4,)`, pixels of the image, clipped to it.
            outlines: whether they are wanted.

        Returns:
            The mask; None where no pixel of the box is in it.
        """
        rows, columns = self._pixels(box_xyxy)
        if rows.start == rows.stop or columns.start == columns.stop:
            return None
        touched_rows, touched_columns = self._rows.touched(rows), self._columns.touched(columns)
        cells = self._prototypes[:, touched_rows, touched_columns]
        logits = coefficients @ cells.reshape(len(cells), -1).astype(np.float32, copy=False)
        wide = logits.reshape(cells.shape[1:]) @ self._columns.weights[columns, touched_columns].T
        bits, changes = self._fill(wide, rows, touched_rows.start)
        if not len(changes[0]):
            return None
        width, height = self._size_wh
        counts = _counts((changes[1] + columns.start) * height + changes[0] + rows.start, width * height)
        found = find_outlines(bits, (columns.start, rows.start)) if outlines else ()
        return Mask(self._size_wh, counts, found)

    def _pixels(self, box_xyxy: Floats) -> tuple[slice, slice]:
        """Rows and columns of a box: those from its first corner up to, but without, its second."""
        x1, y1, x2, y2 = np.ceil(box_xyxy).astype(int).tolist() if not np.isnan(box_xyxy).any() else (0, 0, 0, 0)
        return slice(y1, max(y1, y2)), slice(x1, max(x1, x2))

    def _fill(
        self, wide: Floats, rows: slice, first_cell: int
    ) -> tuple[Bits, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Interpolate down the columns.

        Args:
            wide: `(cells, width)`, logits of the rows of prototypes that `rows` touch, enlarged along them.
            rows: of the image.
            first_cell: of the prototypes' rows.

        Returns:
            `(height, width)`, and the rows and columns of pixels that differ from the one above them; above the first
            row and below the last all is 0.
        """
        height, width = rows.stop - rows.start, wide.shape[1]
        bits = np.zeros((height + 2, width), np.uint8)  # a row of 0 above and below
        strip = self._rows.strip(width)
        logits = np.empty((min(strip, height), width), np.float32)
        found = []
        for top in range(0, height, strip):
            bottom = min(top + strip, height)
            pixels = slice(rows.start + top, rows.start + bottom)
            cells = self._rows.touched(pixels)
            part = wide[cells.start - first_cell : cells.stop - first_cell]
            np.matmul(self._rows.weights[pixels, cells], part, out=logits[: bottom - top])
            np.greater(logits[: bottom - top], 0, out=bits[top + 1 : bottom + 1].view(np.bool_))
            found.append(np.flatnonzero(bits[top + 1 : bottom + 1] != bits[top:bottom]) + top * width)
        found.append(np.flatnonzero(bits[height]) + height * width)
        return bits[1:-1], np.divmod(np.concatenate(found), width)


@dataclass(frozen=True)
class _Axis:
    """Interpolation along one axis: from cells of the prototypes to pixels of the image.

    Attributes:
        weights: `(pixels, cells)`, each row with 2 or 3 cells that are not 0.
        first, last: `(pixels,)`, the first and the last of these cells; never falling.
    """

    weights: Floats
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, cells: int, factor: int, content: int, padding: int, pixels: int) -> "_Axis":
        """Enlarge by `factor`, cut `content` after `padding`, enlarge to `pixels`."""
        low, high, part = _linear(content, pixels)
        steps = _linear(cells, cells * factor)
        weights = np.zeros((pixels, cells), np.float32)
        rows = np.arange(pixels)
        for neighbour, share in ((low + padding, 1 - part), (high + padding, part)):
            first, second, of_second = (each[neighbour] for each in steps)
            weights[rows, first] += share * (1 - of_second)
            weights[rows, second] += share * of_second
        return cls(weights, steps[0][low + padding], steps[1][high + padding])

    def touched(self, pixels: slice) -> slice:
        """The cells that pixels are made of."""
        return slice(int(self.first[pixels.start]), int(self.last[pixels.stop - 1]) + 1)

    def strip(self, width: int) -> int:
        """How many pixels along this axis, of lines that are `width` wide, are best made at once."""
        pixels, cells = self.weights.shape
        of_cells: int = _STRIP_CELLS * pixels // cells
        return min(max(of_cells, _SMALLEST_STRIP_PX // width), max(_LARGEST_STRIP_PX // width, 1))


def _linear(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Linear interpolation as PyTorch has it (`interpolate`, `align_corners=False`).

    Returns:
        Of each of the `wanted` pixels the two neighbours among `size`, and the share of the second.
    """
    scale = np.float32(size) / np.float32(wanted)
    at = np.maximum(scale * (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(at.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def _enlargement(plan: Letterbox) -> int:
    """The smallest of 1, 2 and 4 by which prototypes are enlarged so that the padding falls on whole pixels."""
    pad = (plan.input_wh[0] - plan.resized_wh[0]) | (plan.input_wh[1] - plan.resized_wh[1])
    return INPUT_PER_PROTOTYPE_PX // math.gcd(INPUT_PER_PROTOTYPE_PX, pad | pad // 2)


def _counts(changes: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Lengths of runs, from the pixels in column order where the mask changes within a column."""
    changes = np.sort(changes)
    # Where one column ends with a run and the next one begins with one, both changes are at the same pixel: none is.
    again = np.zeros(len(changes) + 1, np.bool_)
    again[1:-1] = changes[1:] == changes[:-1]
    edges = np.concatenate([[0], changes[~(again[1:] | again[:-1])], [pixels]])
    counts: NDArray[np.int64] = edges[1:] - edges[:-1]
    return counts if counts[-1] else counts[:-1]


def find_outlines(bits: Bits, corner_xy: tuple[int, int]) -> tuple[Points, ...]:
    """The outline of each part of a mask, the largest first.

    Args:
        bits: `(height, width)`.
        corner_xy: where it lies in the image.
    """
    contours, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=corner_xy)
    largest_first = sorted(contours, key=lambda contour: (cv2.contourArea(contour), len(contour)), reverse=True)
    return tuple(_at_least_three(np.asarray(contour, np.int32).reshape(-1, 2)) for contour in largest_first)


def _at_least_three(points: Points) -> Points:
    """The outline of a part of one or two pixels, or of a line, with its last point repeated."""
    missing = _FEWEST_POINTS - len(points)
    return points if missing <= 0 else np.concatenate([points, points[-1:].repeat(missing, axis=0)])


def mask_iou(ones: Sequence[Mask], others: Sequence[Mask]) -> Floats:
    """Overlap of each mask with the one of the same index: pixels in both by pixels in either."""
    pairs = zip(ones, others, strict=True)
    ious = [coco.iou([one.rle()], [other.rle()], [0])[0, 0] for one, other in pairs]
    return np.array(ious, np.float32)
