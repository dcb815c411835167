"""Rows to verify a fitted estimator with, made from what it remembers of its training rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.errors import first_line
from export.tables.categories import is_missing
from export.tables.estimator import Rows
from export.tables.preprocessing import chosen_indices
from export.tables.spread import middle_and_spread
from export.tables.tree_rows import compared_trees, rows_of_trees

_FEW = 256
_FAR = 8.0  # spreads from the middle: how far out the extreme rows are
_MEMBERS = 4
_POINTS = ("support_vectors_", "_fit_X", "X_train_", "X_fit_", "centroids_", "cluster_centers_", "subcluster_centers_")

_SAME = 1e-6  # of a column's largest value: error of a value after the inverse of a step and the step itself


@dataclass(frozen=True)
class Search:
    """A search for rows, step by step.

    Attributes:
        rng: draws them.
        lost: why the rows of later steps have no inverse through a step, by the name of its class.
    """

    rng: np.random.Generator
    lost: dict[str, str] = field(default_factory=dict)


def find_rows(estimator: Any, width: int, search: Search) -> Rows:
    """Rows `(rows, width)` for a fitted estimator or step: FP64, or objects where there are strings.

    The rows of a pipeline are those of its first step, and those of later steps by the inverses of the steps before.
    """
    for attribute, find in _FINDERS.items():
        if getattr(estimator, attribute, None) is not None and (rows := find(estimator, width, search)) is not None:
            return rows
    return _of_spread(estimator, width, search.rng)


def nearby(rows: Rows) -> Rows:
    """The rows, and their next neighbours in FP64 above and below."""
    if rows.dtype == np.object_:
        return rows
    return np.vstack([rows, np.nextafter(rows, np.inf), np.nextafter(rows, -np.inf)])


def _of_steps(estimator: Any, width: int, search: Search) -> Rows:
    known = _steps(estimator)
    rows, jumps = find_rows(known[-1], getattr(known[-1], "n_features_in_", width), search), _jumps(known[-1])
    for step in reversed(known[:-1]):
        own = find_rows(step, getattr(step, "n_features_in_", width), search)
        # A step without jumps is verified as well by the rows of the steps before.
        back = _back(step, rows, search if jumps else Search(search.rng))
        rows, jumps = own if back is None else _join([own, back]), jumps or _jumps(step)
    return rows


def _jumps(step: Any) -> bool:
    """Whether an error may show only at the values that a step remembers, such as thresholds."""
    return any(getattr(step, attribute, None) is not None for attribute in (*_FINDERS, "bin_edges_"))


def _steps(pipeline: Any) -> list[Any]:
    return [step for _, step in pipeline.steps if step is not None and not isinstance(step, str)]


def _of_union(estimator: Any, width: int, search: Search) -> Rows:
    return _join([find_rows(part, width, search) for _, part in estimator.transformer_list])


def _of_preprocessed(histogram: Any, width: int, search: Search) -> Rows:
    """Rows for HistGradientBoosting with categories, whose trees take the columns after an encoder of its own."""
    own = _of_columns(histogram._preprocessor, width, search)
    splits = rows_of_trees(compared_trees(histogram) or [], width, search.rng)
    return _join([own, _of_columns(histogram._preprocessor, width, search, splits)])


def _of_texts(step: Any, _width: int, _search: Search) -> Rows | None:
    """The fill values of missing strings; for numbers, rows around the middle are better."""
    texts = any(isinstance(value, str) for value in step.statistics_)
    return np.array([list(step.statistics_)], np.object_) if texts else None


def _of_members(estimator: Any, width: int, search: Search) -> Rows | None:
    """Rows for an ensemble: those of its trees, or of some members that take all columns."""
    if (splits := compared_trees(estimator)) is not None:
        return rows_of_trees(splits, width, search.rng)
    found = (getattr(estimator, name, None) for name in ("estimators_", "calibrated_classifiers_"))
    members: Sequence[Any] = next((members for members in found if members is not None), ())
    fitted = [member.estimator if hasattr(member, "calibrators") else member for member in members]
    whole = [member for member in fitted if getattr(member, "n_features_in_", width) == width]
    return _join([find_rows(member, width, search) for member in whole[:_MEMBERS]]) if whole else None


def _of_points(estimator: Any, width: int, search: Search) -> Rows | None:
    points = next((getattr(estimator, name) for name in _POINTS if hasattr(estimator, name)), None)
    if not isinstance(points, np.ndarray) or points.shape[1:] != (width,) or not len(points):
        return None
    return _around(points.astype(np.float64), search.rng)


def _back(step: Any, rows: Rows, search: Search) -> Rows | None:
    """Rows from which a step makes these; None where its own rows are used, which `search` notes where that is less."""
    width = getattr(step, "n_features_in_", int(rows.shape[1]))
    if hasattr(step, "steps"):
        found: Rows | None = rows
        for part in reversed(_steps(step)):
            found = None if found is None else _back(part, found, search)
        return found
    if hasattr(step, "transformers_"):
        return _of_columns(step, width, search, rows)
    if hasattr(step, "categories_") or hasattr(step, "bin_edges_"):
        return None  # its own rows hold every category and bin, which is all that later steps take
    back, why = _invert(step, rows, width)
    if why is not None:
        search.lost[type(step).__name__] = why
    return back


def _invert(step: Any, rows: Rows, width: int) -> tuple[Rows | None, str | None]:
    """Rows `(rows, width)` from which a step makes these, or None; and why it does not make most of them, or None."""
    if hasattr(step, "statistics_"):
        return (rows, None) if rows.shape[1] == width else (None, "it adds or drops columns")
    if not hasattr(step, "inverse_transform"):
        return None, "it has no inverse"
    if rows.dtype == np.object_:
        return None, "they hold strings"
    try:
        back = np.asarray(step.inverse_transform(rows), np.float64)
        finite = np.isfinite(back).all(axis=1)
        again = step.transform(back[finite])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:  # of a user's function
        return None, f"its inverse fails: {first_line(exc)}"
    if back.shape[1] != width:
        return None, f"its inverse returns {back.shape[1]} columns, expected {width}"
    again = np.asarray(again.toarray() if hasattr(again, "toarray") else again)
    same = np.abs(again - rows[finite]) <= _SAME * np.abs(rows).max(axis=0, initial=0)
    # A value that a step cannot return, such as one beyond its range, has no inverse.
    return back[finite], "most values do not come back through its inverse" if same.sum() < rows.size / 2 else None


def _of_columns(step: Any, width: int, search: Search, after: Rows | None = None) -> Rows:
    """Rows for a ColumnTransformer, each column from its own part; `after`: its output rows, whose inverse is taken."""
    names = list(getattr(step, "feature_names_in_", ()))
    parts: list[tuple[list[int], Rows]] = []
    for name, part, chosen in step.transformers_:
        places = chosen_indices(chosen, width, names)
        if not places:
            continue
        rows: Rows | None = None
        is_fitted = not isinstance(part, str)
        if after is not None:
            behind = after[:, step.output_indices_[name]]
            rows = _back(part, behind, search) if is_fitted else behind if part == "passthrough" else None
        if rows is None or not len(rows):
            rows = find_rows(part, len(places), search) if is_fitted else search.rng.normal(size=(_FEW, len(places)))
        parts.append((places, rows))
    count = max((len(rows) for _, rows in parts), default=_FEW)
    mixed = any(rows.dtype == np.object_ for _, rows in parts)
    table = search.rng.normal(size=(count, width)).astype(np.object_ if mixed else np.float64)
    for places, rows in parts:
        # Rows of an inverse keep their order; fewer ones are drawn several times.
        order = np.arange(count) if len(rows) == count else search.rng.integers(len(rows), size=count)
        table[:, places] = rows[order]
    return table


def _of_categories(step: Any, _width: int, search: Search) -> Rows:
    categories = step.categories_
    texts = any(isinstance(name, str) for names in categories for name in names)
    count = max(_FEW, *(len(names) for names in categories))
    columns = []
    for names in categories:
        every = np.resize(np.arange(len(names)), count)
        chosen = [names[index] for index in search.rng.permutation(every)]
        columns.append([np.nan if is_missing(name) else name for name in chosen])
    table = np.empty((count, len(columns)), np.object_)
    for index, column in enumerate(columns):
        table[:, index] = column
    return table if texts else table.astype(np.float64)


def _around(points: Rows, rng: np.random.Generator) -> Rows:
    """Some of the points, and rows near them."""
    chosen = points[rng.integers(len(points), size=_FEW)]
    return np.vstack([chosen, chosen + 0.3 * points.std(axis=0) * rng.normal(size=chosen.shape)])


def _of_spread(step: Any, width: int, rng: np.random.Generator) -> Rows:
    """Rows around the middle that it remembers, and far from it."""
    noise = rng.normal(size=(_FEW, width))
    if hasattr(step, "lambdas_"):
        back, _ = _invert(step, noise, width)
        return noise if back is None else back
    middle, spread = middle_and_spread(step, width)
    noise[: _FEW // 16] *= _FAR
    rows: Rows = middle + spread * noise
    edges = [np.asarray(edge, np.float64) for edge in getattr(step, "bin_edges_", ())]
    for column, values in enumerate(edges):
        rows[::2, column] = rng.choice(values, len(rows[::2]))
    return rows


def _join(parts: Sequence[Rows]) -> Rows:
    kept = [part for part in parts if len(part)]
    return np.vstack([part.astype(np.object_) for part in kept] if any(p.dtype == np.object_ for p in kept) else kept)


_FINDERS: Mapping[str, Callable[[Any, int, Search], Rows | None]] = {
    "best_estimator_": lambda tuned, width, search: find_rows(tuned.best_estimator_, width, search),
    "regressor_": lambda transformed, width, search: find_rows(transformed.regressor_, width, search),
    "steps": _of_steps,
    "transformers_": _of_columns,
    "transformer_list": _of_union,
    "_preprocessor": _of_preprocessed,
    "categories_": _of_categories,
    "statistics_": _of_texts,
    "tree_": _of_members,
    "_predictors": _of_members,
    "get_booster": _of_members,
    "estimators_": _of_members,
    "calibrated_classifiers_": _of_members,
    **dict.fromkeys(_POINTS, _of_points),
}
