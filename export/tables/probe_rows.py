"""Rows to verify a fitted estimator with, made from what it remembers of the rows that it was fitted on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import first_line
from export.tables import boosters, trees
from export.tables.categories import is_missing
from export.tables.estimator import Rows
from export.tables.preprocessing import chosen_indices

_FEW = 256
_MOST_SPLITS = 1500  # of all trees; each is tried at its threshold, just below and just above
_FAR = 8.0  # spreads from the middle: how far out the extreme rows are
_MEMBERS = 4
_POINTS = ("support_vectors_", "_fit_X", "X_train_", "X_fit_", "centroids_", "cluster_centers_", "subcluster_centers_")

_SAME = 1e-6  # of a column's largest value: how far a value may be off that went back through a step and forth again


@dataclass(frozen=True)
class Search:
    """A search for rows, step by step.

    Attributes:
        rng: draws them.
        lost: why the rows of later steps could not be brought back through a step, by the name of its class.
    """

    rng: np.random.Generator
    lost: dict[str, str] = field(default_factory=dict)


def seek(estimator: Any, width: int, search: Search) -> Rows:
    """Rows `(rows, width)` for a fitted estimator or step: FP64, or objects where there are strings.

    The rows of a pipeline are those of its first step, and those of the later ones on their way back through the
    inverse of each step before.
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
    rows, jumps = seek(known[-1], getattr(known[-1], "n_features_in_", width), search), _jumps(known[-1])
    for step in reversed(known[:-1]):
        own = seek(step, getattr(step, "n_features_in_", width), search)
        # What bends nowhere is as well verified by the rows of the steps before.
        back = _back(step, rows, search if jumps else Search(search.rng))
        rows, jumps = own if back is None else _join([own, back]), jumps or _jumps(step)
    return rows


def _jumps(step: Any) -> bool:
    """Whether an error may show at the values that a step remembers only, such as thresholds."""
    return any(getattr(step, attribute, None) is not None for attribute in (*_FINDERS, "bin_edges_"))


def _steps(pipeline: Any) -> list[Any]:
    return [step for _, step in pipeline.steps if step is not None and not isinstance(step, str)]


def _of_union(estimator: Any, width: int, search: Search) -> Rows:
    return _join([seek(part, width, search) for _, part in estimator.transformer_list])


def _of_preprocessed(histogram: Any, width: int, search: Search) -> Rows:
    """Of HistGradientBoosting with categories, whose trees see the columns behind an encoder of its own."""
    own = _of_columns(histogram._preprocessor, width, search)
    splits = _of_trees(_trees_of(histogram) or [], width, search.rng)
    return _join([own, _of_columns(histogram._preprocessor, width, search, splits)])


def _of_texts(step: Any, _width: int, _search: Search) -> Rows | None:
    """The fill values of missing strings; for numbers, rows around the middle are better."""
    texts = any(isinstance(value, str) for value in step.statistics_)
    return np.array([list(step.statistics_)], np.object_) if texts else None


def _of_members(estimator: Any, width: int, search: Search) -> Rows | None:
    """Of an ensemble: trees, or some of those that see all columns."""
    if (splits := _trees_of(estimator)) is not None:
        return _of_trees(splits, width, search.rng)
    found = (getattr(estimator, name, None) for name in ("estimators_", "calibrated_classifiers_"))
    members: Sequence[Any] = next((members for members in found if members is not None), ())
    fitted = [member.estimator if hasattr(member, "calibrators") else member for member in members]
    whole = [member for member in fitted if getattr(member, "n_features_in_", width) == width]
    return _join([seek(member, width, search) for member in whole[:_MEMBERS]]) if whole else None


def _of_points(estimator: Any, width: int, search: Search) -> Rows | None:
    points = next((getattr(estimator, name) for name in _POINTS if hasattr(estimator, name)), None)
    if not isinstance(points, np.ndarray) or points.shape[1:] != (width,) or not len(points):
        return None
    return _around(points.astype(np.float64), search.rng)


def _back(step: Any, rows: Rows, search: Search) -> Rows | None:
    """Rows that a step makes these of; None where its own rows have to do, which `search` notes where they are less."""
    width = getattr(step, "n_features_in_", int(rows.shape[1]))
    if hasattr(step, "steps"):
        found: Rows | None = rows
        for part in reversed(_steps(step)):
            found = None if found is None else _back(part, found, search)
        return found
    if hasattr(step, "transformers_"):
        return _of_columns(step, width, search, rows)
    if hasattr(step, "categories_") or hasattr(step, "bin_edges_"):
        return None  # its own rows hold every category and bin: later steps see nothing else
    back, why = _invert(step, rows, width)
    if why is not None:
        search.lost[type(step).__name__] = why
    return back


def _invert(step: Any, rows: Rows, width: int) -> tuple[Rows | None, str | None]:
    """Rows `(rows, width)` that a step makes these of, None where there are none; and why most of them are not such."""
    if hasattr(step, "statistics_"):
        return (rows, None) if rows.shape[1] == width else (None, "it adds or leaves out columns")
    if not hasattr(step, "inverse_transform"):
        return None, "it has no inverse"
    if rows.dtype == np.object_:
        return None, "they hold strings"
    try:
        back = np.asarray(step.inverse_transform(rows), np.float64)
        finite = np.isfinite(back).all(axis=1)
        again = step.transform(back[finite])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:  # of a function of the user's
        return None, f"its inverse fails: {first_line(exc)}"
    if back.shape[1] != width:
        return None, f"its inverse gives {back.shape[1]} columns of {width}"
    again = np.asarray(again.toarray() if hasattr(again, "toarray") else again)
    same = np.abs(again - rows[finite]) <= _SAME * np.abs(rows).max(axis=0, initial=0)
    # A value that a step cannot give, such as one beyond its range, has no way back.
    return back[finite], "most values do not come back through its inverse" if same.sum() < rows.size / 2 else None


def _of_columns(step: Any, width: int, search: Search, after: Rows | None = None) -> Rows:
    """Columns of a ColumnTransformer, each from its own part; `after`: rows behind it, to be brought back."""
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
            rows = seek(part, len(places), search) if is_fitted else search.rng.normal(size=(_FEW, len(places)))
        parts.append((places, rows))
    count = max((len(rows) for _, rows in parts), default=_FEW)
    mixed = any(rows.dtype == np.object_ for _, rows in parts)
    table = search.rng.normal(size=(count, width)).astype(np.object_ if mixed else np.float64)
    for places, rows in parts:
        # Rows that were brought back keep together; fewer ones are drawn again.
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


def _trees_of(estimator: Any) -> list[trees.Tree] | None:
    """Trees that compare the columns themselves; None where there are none."""
    if hasattr(estimator, "calibrated_classifiers_"):
        return None
    if boosters.is_xgboost(estimator):
        booster = boosters.of_wrapper(estimator)
        if booster.learner["gradient_booster"]["name"] == "gblinear":
            return None
        return boosters.trees_of(booster)
    if hasattr(estimator, "_predictors"):
        known = {column: frozenset(range(256)) for column in range(estimator.n_features_in_)}
        return [
            trees.of_histogram(member, known, output=0, outputs=1)
            for member in chain.from_iterable(estimator._predictors)
        ]
    found = getattr(estimator, "estimators_", [])
    members = [estimator] if hasattr(estimator, "tree_") else found.ravel() if isinstance(found, np.ndarray) else found
    if not len(members) or not all(hasattr(member, "tree_") for member in members):
        return None
    return [trees.of_sklearn(member, outputs=1, share=1) for member in members]


def _of_trees(splits: Sequence[trees.Tree], width: int, rng: np.random.Generator) -> Rows:
    """Rows that reach a split, and lie on it, just below and just above, as FP32 has it."""
    inner = [(tree, int(node)) for tree in splits for node in np.flatnonzero(tree.left >= 0)]
    found: dict[int, list[float]] = {}
    for tree, node in inner:
        split = tree.categories.get(node)
        values = [float(tree.threshold[node])] if split is None else [*split.left, *split.right]
        found.setdefault(int(tree.column[node]), []).extend(values)
    base = rng.normal(size=(_FEW, width))
    for column, values in found.items():
        coded = any(split.column == column for tree in splits for split in tree.categories.values())
        noise = 0.0 if coded else 0.1 * max(float(np.std(values)), 1e-3 * abs(values[0]), 1e-6)
        base[:, column] = rng.choice(values, _FEW) + noise * base[:, column]
    if not inner:
        return base
    chosen = rng.permutation(len(inner))[:_MOST_SPLITS]
    parents = {id(tree): _parents(tree) for tree in splits}
    reached = [row for index in chosen for row in _at_split(inner[index], parents, base[rng.integers(_FEW)])]
    return np.vstack([base, *reached])


def _parents(tree: trees.Tree) -> NDArray[np.int64]:
    parents = np.full(len(tree.left), -1)
    inner = np.flatnonzero(tree.left >= 0)
    parents[tree.left[inner]] = parents[tree.right[inner]] = inner
    return parents


def _at_split(place: tuple[trees.Tree, int], parents: dict[int, Any], base: Rows) -> list[Rows]:
    """A row that reaches a split: on its threshold, on that in FP32, just below and just above."""
    tree, node = place
    row = _led_to(place, parents, base)
    if node in tree.categories:
        return [row]
    exact, threshold = float(tree.threshold[node]), np.float32(tree.threshold[node])
    below, above = (float(np.nextafter(threshold, np.float32(end))) for end in (-np.inf, np.inf))
    rows = np.tile(row, (4, 1))
    rows[:, int(tree.column[node])] = exact, float(threshold), below, above
    return list(rows)


def _led_to(place: tuple[trees.Tree, int], parents: dict[int, Any], base: Rows) -> Rows:
    """A row changed only as far as needed to reach a node."""
    tree, child = place
    row: Rows = base.copy()
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    while (parent := int(parents[id(tree)][child])) >= 0:
        column, threshold = int(tree.column[parent]), float(tree.threshold[parent])
        if parent in tree.categories:
            pass
        elif tree.left[parent] == child:
            high[column] = min(high.get(column, np.inf), threshold)
        else:
            low[column] = max(low.get(column, -np.inf), threshold)
        child = parent
    for column in low.keys() | high.keys():
        start, end = low.get(column, -np.inf), high.get(column, np.inf)
        if start < row[column] < end:
            continue
        if np.isfinite(start) and np.isfinite(end):
            row[column] = (start + end) / 2
        else:
            known, sign = (start, 1) if np.isfinite(start) else (end, -1)
            row[column] = known + sign * max(0.1 * abs(known), 1e-3)
    return row


def _around(points: Rows, rng: np.random.Generator) -> Rows:
    """Some of the points, and rows a little away from them."""
    chosen = points[rng.integers(len(points), size=_FEW)]
    return np.vstack([chosen, chosen + 0.3 * points.std(axis=0) * rng.normal(size=chosen.shape)])


def _of_spread(step: Any, width: int, rng: np.random.Generator) -> Rows:
    """Around the middle of what it remembers, and far from it."""
    noise = rng.normal(size=(_FEW, width))
    if hasattr(step, "lambdas_"):
        back, _ = _invert(step, noise, width)
        return noise if back is None else back
    middle, spread = _middle(step, width)
    noise[: _FEW // 16] *= _FAR
    rows: Rows = middle + spread * noise
    edges = [np.asarray(edge, np.float64) for edge in getattr(step, "bin_edges_", ())]
    for column, values in enumerate(edges):
        rows[::2, column] = rng.choice(values, len(rows[::2]))
    return rows


def _middle(step: Any, width: int) -> tuple[Any, Any]:
    """Middle and spread of each column."""

    def remembered(name: str) -> Any:
        value = getattr(step, name, None)
        if value is None or isinstance(value, str):
            return None
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            return None
        return array if array.shape == (width,) and np.isfinite(array).all() else None

    low, high = remembered("data_min_"), remembered("data_max_")
    if low is not None and high is not None:
        return (low + high) / 2, np.maximum((high - low) / 4, 1e-12)
    middle = next(
        (value for name in ("mean_", "center_", "statistics_", "xbar_") if (value := remembered(name)) is not None),
        None,
    )
    scale = next((value for name in ("scale_", "max_abs_") if (value := remembered(name)) is not None), None)
    for name, spreads in (("theta_", "var_"), ("means_", "")):
        points = getattr(step, name, None)
        if middle is None and isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] == width:
            middle = points.mean(axis=0)
            inner = np.sqrt(getattr(step, spreads).mean(axis=0)) if spreads else 0
            scale = points.std(axis=0) + inner
    weights = getattr(step, "coef_", None)
    if isinstance(weights, np.ndarray) and weights.shape[-1] == width and scale is None:
        # Where a column of this size moves the sum by one.
        scale = 1 / np.maximum(np.abs(weights.reshape(-1, width)).mean(axis=0), 1e-9)
    quantiles = getattr(step, "quantiles_", None)
    if isinstance(quantiles, np.ndarray) and quantiles.ndim == 2 and quantiles.shape[1] == width:
        middle, scale = np.median(quantiles, axis=0), quantiles.std(axis=0)
    edges = getattr(step, "bin_edges_", None)
    if edges is not None and len(edges) == width:
        middle, scale = np.array([np.mean(e) for e in edges]), np.array([np.std(e) for e in edges])
    middle = np.zeros(width) if middle is None else middle
    if scale is None:
        scale = np.maximum(np.abs(middle), 1.0) if middle.any() else np.ones(width)
    return middle, scale


def _join(parts: Sequence[Rows]) -> Rows:
    kept = [part for part in parts if len(part)]
    return np.vstack([part.astype(np.object_) for part in kept] if any(p.dtype == np.object_ for p in kept) else kept)


_FINDERS: Mapping[str, Callable[[Any, int, Search], Rows | None]] = {
    "best_estimator_": lambda tuned, width, search: seek(tuned.best_estimator_, width, search),
    "regressor_": lambda transformed, width, search: seek(transformed.regressor_, width, search),
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
