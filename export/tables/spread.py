"""The middle and the spread of the columns that a fitted step remembers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def middle_and_spread(step: Any, width: int) -> tuple[Floats, Floats]:
    """Middle and spread of each column, `(width,)`."""
    low, high = _remembered(step, "data_min_", width), _remembered(step, "data_max_", width)
    if low is not None and high is not None:
        return (low + high) / 2, np.maximum((high - low) / 4, 1e-12)
    middle, scale = _of_points(step, width, *_of_statistics(step, width))
    weights = getattr(step, "coef_", None)
    if isinstance(weights, np.ndarray) and weights.shape[-1] == width and scale is None:
        # Where a column of this size moves the sum by one.
        scale = 1 / np.maximum(np.abs(weights.reshape(-1, width)).mean(axis=0), 1e-9)
    middle, scale = _of_bins(step, width, middle, scale)
    middle = np.zeros(width) if middle is None else middle
    if scale is None:
        scale = np.maximum(np.abs(middle), 1.0) if middle.any() else np.ones(width)
    return middle, scale


def _remembered(step: Any, name: str, width: int) -> Floats | None:
    """An attribute that is a finite number for each column, else None."""
    value = getattr(step, name, None)
    if value is None or isinstance(value, str):
        return None
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (width,) and np.isfinite(array).all() else None


def _of_statistics(step: Any, width: int) -> tuple[Floats | None, Floats | None]:
    middles = (_remembered(step, name, width) for name in ("mean_", "center_", "statistics_", "xbar_"))
    scales = (_remembered(step, name, width) for name in ("scale_", "max_abs_"))
    return next(filter(_is_there, middles), None), next(filter(_is_there, scales), None)


def _is_there(value: Floats | None) -> bool:
    return value is not None


def _of_points(
    step: Any, width: int, middle: Floats | None, scale: Floats | None
) -> tuple[Floats | None, Floats | None]:
    """Middle and spread of the means of naive Bayes and mixtures, where no other attribute gives a middle."""
    for name, spreads in (("theta_", "var_"), ("means_", "")):
        points = getattr(step, name, None)
        if middle is None and isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] == width:
            middle = points.mean(axis=0)
            inner = np.sqrt(getattr(step, spreads).mean(axis=0)) if spreads else 0
            scale = points.std(axis=0) + inner
    return middle, scale


def _of_bins(step: Any, width: int, middle: Floats | None, scale: Floats | None) -> tuple[Floats | None, Floats | None]:
    """Middle and spread of quantiles or edges of bins, which describe a column better than other attributes."""
    quantiles = getattr(step, "quantiles_", None)
    if isinstance(quantiles, np.ndarray) and quantiles.ndim == 2 and quantiles.shape[1] == width:
        middle, scale = np.median(quantiles, axis=0), quantiles.std(axis=0)
    edges = getattr(step, "bin_edges_", None)
    if edges is not None and len(edges) == width:
        middle, scale = np.array([np.mean(e) for e in edges]), np.array([np.std(e) for e in edges])
    return middle, scale
