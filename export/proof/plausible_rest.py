"""Checks that what belongs to each box is possible: masks, keypoints, angles that are read by the wrong layout."""

from collections.abc import Sequence
from math import pi

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph.head import Layout
from export.proof.plausibility import Candidates, Floats

_NEXT = "does the metadata describe another head?"
_ROUNDING = 1e-6
_REACH = 8  # sides of a box, or of the median box: keypoints of a network that knows nothing lie within some strides
_MOST = 0.5
_TURNS = 2 * pi  # YOLO26 returns the angle itself, others sigmoid: -pi/4 to 3/4 pi


def check_rest(found: Sequence[tuple[Candidates, Floats | None]], layout: Layout) -> None:
    """Reject impossible masks, keypoints or angles.

    Args:
        found: the best candidates of each image, and its prototypes.
        layout: of the head.

    Raises:
        ExportError: a number is not finite, prototypes are constant, keypoints are far from everything, visibility is
            no probability, or angles are no radians.
    """
    parts = [candidates.rest for candidates, _ in found if candidates.rest is not None]
    if not parts:
        return
    rest = np.concatenate(parts)
    prototypes = [each for _, each in found if each is not None]
    if not all(np.isfinite(array).all() for array in (rest, *prototypes)):
        raise ExportError(f"got NaN or infinite {_kind(layout)}: the model is broken")
    if layout.task == "segment":
        _check_prototypes(rest, prototypes)
    elif layout.kpt_shape:
        _check_keypoints(np.concatenate([candidates.boxes for candidates, _ in found]), rest, layout.kpt_shape)
    else:
        _check_angles(rest)


def _kind(layout: Layout) -> str:
    return {"segment": "coefficients or prototypes", "pose": "keypoints"}.get(layout.task, "angles")


def _check_prototypes(coefficients: NDArray[np.floating], prototypes: Sequence[Floats]) -> None:
    flat = [int((np.ptp(each.reshape(len(each), -1), axis=1) == 0).sum()) for each in prototypes]
    if min(flat) == len(prototypes[0]) or not coefficients.any():
        what = "no coefficient other than 0" if not coefficients.any() else "prototypes of one value each"
        raise ExportError(f"masks: got {what}, expected different ones: {_NEXT}")


def _check_keypoints(boxes: Floats, keypoints: NDArray[np.floating], kpt_shape: tuple[int, int]) -> None:
    points = keypoints.reshape(len(keypoints), *kpt_shape)
    sides = boxes[:, 2:].max(axis=1)
    distances = np.abs(points[..., :2] - boxes[:, None, :2]).max(axis=2)
    near = float((distances <= _REACH * np.maximum(sides, np.median(sides))[:, None]).mean())
    if near < _MOST:
        raise ExportError(
            f"keypoints: got {near:.0%} of them within {_REACH} sides of their box, expected most: {_NEXT}"
        )
    if kpt_shape[1] == 3:
        low, high = float(points[..., 2].min()), float(points[..., 2].max())
        if low < 0 or high > 1 + _ROUNDING:
            raise ExportError(f"visibility of keypoints: got {low:.4g} to {high:.4g}, expected 0 to 1: {_NEXT}")


def _check_angles(angles: NDArray[np.floating]) -> None:
    low, high = float(angles.min()), float(angles.max())
    if low < -_TURNS or high > _TURNS:
        raise ExportError(
            f"angles: got {low:.4g} to {high:.4g}, expected radians, from {-_TURNS:.3g} to {_TURNS:.3g}: {_NEXT}"
        )
