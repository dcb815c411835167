"""Joins the inputs of requests into a batch, and splits its outputs; a single request is not copied."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the same input of several requests.

    Args:
        arrays: At least one, each `(N_i, ...)`; only `N_i` may differ.

    Returns:
        `(sum N_i, ...)`; a single array itself, not a copy.
    """
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def split(array: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Undo `join` for an output.

    Args:
        array: `(sum sizes, ...)`.
        sizes: Rows of each request.

    Returns:
        A view for each request; for a single one the array itself.

    Raises:
        ValueError: the output does not have one row for each input row.
    """
    if array.ndim == 0 or len(array) != sum(sizes):
        raise ValueError(f"output: got shape {list(array.shape)}, expected a batch of {sum(sizes)}")
    if len(sizes) == 1:
        return [array]
    edges = np.cumsum([0, *sizes])
    return [array[start:stop] for start, stop in pairwise(edges)]


def terminate_strings(strings: NDArray[Any]) -> NDArray[np.bytes_]:
    """Convert a BYTES tensor to the form that ONNX Runtime reads correctly.

    From an array of objects it would take the `str` of each `bytes`, quotes included. Fixed-width bytes it reads up to
    the first NUL, beyond the end of an element that fills its width (seen in 1.31). As in the C++ backend, an element
    ends at its first NUL.

    Args:
        strings: Elements are `bytes`.

    Returns:
        The same shape, one byte wider than the longest element.
    """
    width = max((len(element) for element in strings.flat), default=0) + 1
    return strings.astype(f"S{width}")
