"""Requests to one array and back, without copying where there is nothing to join."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stack the same input of several requests.

    Args:
        arrays: At least one; each `(N_i, ...)`, alike but for `N_i`.

    Returns:
        `(sum N_i, ...)`; the very array where there is one, so that a batch of one request is not copied.
    """
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def split(array: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Undo `join` for an output.

    Args:
        array: `(sum sizes, ...)`.
        sizes: Rows of each request.

    Returns:
        A view for each request.

    Raises:
        ValueError: the model did not return one row for each row that went in.
    """
    if array.ndim == 0 or len(array) != sum(sizes):
        raise ValueError(f"an output of shape {list(array.shape)} does not fit a batch of {sum(sizes)}")
    edges = np.cumsum([0, *sizes])
    return [array[start:stop] for start, stop in pairwise(edges)]


def terminate_strings(strings: NDArray[Any]) -> NDArray[np.bytes_]:
    """Return a BYTES tensor as ONNX Runtime can take it.

    Of an array of objects it would take the `str` of each `bytes`, its quotes included; and it reads fixed-width bytes
    up to the first NUL, past the end of an element that fills its width (seen in 1.31). As with the C++ backend, an
    element ends at a NUL of its own.

    Args:
        strings: Elements are `bytes`.

    Returns:
        The same shape, one byte wider than the longest element.
    """
    width = max((len(element) for element in strings.flat), default=0) + 1
    return strings.astype(f"S{width}")
