"""Scenes for the comparison of digit-finder."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray


class _Count(TypedDict):
    count: int
    seed: int


# Arguments of `export.examples.scenes.compose`.
SCENES: _Count = {"count": 100, "seed": 77}

# Heights and widths in turn: landscape, portrait, sides that are not a multiple of the stride.
_SHAPES_HW = ((213, 320), (320, 190), (301, 299))


def cut_scene(image_hwc: NDArray[Any], index: int) -> NDArray[np.uint8]:
    """The upper left part of a scene; it may cut digits."""
    height, width = _SHAPES_HW[index % len(_SHAPES_HW)]
    return np.ascontiguousarray(image_hwc[:height, :width], np.uint8)
