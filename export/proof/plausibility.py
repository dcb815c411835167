"""Checks that candidates of a detector are possible: boxes and scores show a head that is read by the wrong layout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

Floats = NDArray[np.float32]

COMPARED = 100  # the best ones of each image, even of low scores: there is always something to compare
_ROUNDING = 1e-6  # ONNX Runtime's Sigmoid may end one last bit above 1
_SURE = 0.25  # a score that is not chance
_ODD_SURE, _ODD = 0.1, 0.5  # shares that may be odd: of candidates above `_SURE`, and of the best
_MOST, _ALL, _MANY = 0.8, 0.97, 1 / 3  # shares of all candidates
_OVERHANG = 0.05  # of the longer side: at the edges boxes reach beyond the image by some pixels
_NEXT = "does the metadata describe another head?"


@dataclass(frozen=True)
class Candidates:
    """Outputs of a detector before NMS.

    Attributes:
        boxes: `(N, 4)` cxcywh in model pixels.
        scores: `(N,)`.
        classes: `(N,)`, whole numbers.
        rest: `(N, R)`: coefficients of a mask, keypoints one after the other, an angle; None of boxes alone.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64] | Floats
    rest: Floats | None = None

    def best(self, count: int) -> "Candidates":
        """The `count` with the highest scores, best first."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        rest = None if self.rest is None else self.rest[order]
        return Candidates(self.boxes[order], self.scores[order], self.classes[order], rest)


def check(candidates: Candidates, size_hw: Sequence[int], *, classes: int, where: str) -> None:
    """Reject impossible candidates of one image.

    Args:
        candidates: all of them.
        size_hw: of the model's input.
        classes: how many there are.
        where: for messages.

    Raises:
        ExportError: a score is not a probability, a class has no name, or boxes are inverted or far away.
    """
    _check_scores(candidates.scores, candidates.boxes, where)
    known = candidates.classes[(candidates.classes >= 0) & (candidates.classes < classes)]
    if len(known) < len(candidates.classes) or (known != np.floor(known)).any():
        low, high = candidates.classes.min(), candidates.classes.max()
        raise ExportError(
            f"classes: got {low:.4g} to {high:.4g}, expected whole numbers from 0 to {classes - 1} ({where}): {_NEXT}"
        )
    # Ultralytics' heads reach 15 strides of at most 64 pixels from their anchor.
    limit = 1024 + 4 * max(size_hw)
    best = candidates.best(COMPARED)
    furthest = float(np.abs(best.boxes).max())
    if furthest > limit:
        raise ExportError(f"boxes: got a coordinate of {furthest:.4g} px, expected at most {limit} ({where}): {_NEXT}")
    side = max(size_hw)
    centres, sizes = best.boxes[:, :2], best.boxes[:, 2:]
    reach = np.abs(sizes) / 2
    inside_out: NDArray[np.bool_] = np.any(sizes < 0, axis=1)
    outside: NDArray[np.bool_] = np.any((centres + reach < 0) | (centres - reach > side), axis=1)
    for what, is_so in (("x2 < x1 or y2 < y1", inside_out), (f"no part within {side} px", outside)):
        sure = is_so[best.scores >= _SURE]
        if sure.sum() > _ODD_SURE * len(sure) or is_so.sum() > _ODD * len(is_so):
            box = ", ".join(f"{value:.4g}" for value in best.boxes[is_so.argmax()])
            raise ExportError(
                f"boxes: got {is_so.sum()} of the best {len(is_so)} with {what}, such as cx, cy, w, h = {box} "
                f"({where}): {_NEXT}"
            )


def check_places(candidates: Candidates, size_hw: Sequence[int], *, where: str) -> None:
    """Reject boxes whose numbers are in another order: in the right order, nearly all lie in the image.

    Args:
        candidates: all of them.
        size_hw: of the model's input.
        where: for messages.

    Raises:
        ExportError: they are corners, or sizes come first, or x and y are exchanged.
    """
    height, width = size_hw
    centres, sizes = candidates.boxes[:, :2], candidates.boxes[:, 2:]
    larger = float(np.all(sizes > centres, axis=1).mean())
    beyond = np.maximum(-(centres - sizes / 2), centres + sizes / 2 - (width, height))
    overhang = float(np.any(beyond > _OVERHANG * max(size_hw), axis=1).mean())
    # Boxes that fill the image fulfil the first condition as well, and not the second.
    if len(centres) >= COMPARED and larger > 2 * _MANY and overhang > _MANY:
        raise ExportError(
            f"boxes: got the third number above the first and the fourth above the second in {larger:.0%} of "
            f"{len(centres)}, as corners (x1, y1, x2, y2) have it, or sizes before centres; expected cx, cy, w, h "
            f"({where}): {_NEXT}"
        )
    inside, exchanged = (
        float(np.all((centres >= 0) & (centres <= sides), axis=1).mean())
        for sides in ((width, height), (height, width))
    )
    if inside < _MOST < _ALL < exchanged:
        raise ExportError(
            f"boxes: got {inside:.0%} of all centres inside the input of {height}x{width} pixels, and {exchanged:.0%} "
            f"where x and y are exchanged, expected nearly all inside ({where}): {_NEXT}"
        )


def check_sizes(best: Sequence[Candidates]) -> None:
    """Reject boxes that are smaller than one pixel on every image.

    Args:
        best: of each image.

    Raises:
        ExportError: they are.
    """
    largest = max(float(candidates.boxes[:, 2:].max()) for candidates in best)
    if largest < 1:
        raise ExportError(
            f"boxes: got none larger than {largest:.4g} px on {len(best)} images, expected pixels of the input: "
            f"are they fractions of the image, as RT-DETR's? {_NEXT}"
        )


def _check_scores(scores: Floats, boxes: Floats, where: str) -> None:
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ExportError(f"got NaN or infinite scores or boxes ({where}): the model is broken")
    low, high = float(scores.min()), float(scores.max())
    if low < 0 or high > 1 + _ROUNDING:
        raise ExportError(
            f"scores: got {low:.4g} to {high:.4g}, expected 0 to 1 ({where}): "
            "the model is broken, or returns logits; a bad calibration of an int8 export has this effect"
        )
