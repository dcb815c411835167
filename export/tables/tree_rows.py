"""Rows to verify trees with: on the thresholds of their splits, and next to them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.tables import boosters, trees
from export.tables.estimator import Rows

_FEW = 256
_MOST_SPLITS = 1500  # of all trees; each is tried at its threshold, just below and just above


def compared_trees(estimator: Any) -> list[trees.Tree] | None:
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


def rows_of_trees(splits: Sequence[trees.Tree], width: int, rng: np.random.Generator) -> Rows:
    """For each chosen split, test rows that reach it: at the threshold, one FP32 step below, one above."""
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
    row = _reach(place, parents, base)
    if node in tree.categories:
        return [row]
    exact, threshold = float(tree.threshold[node]), np.float32(tree.threshold[node])
    below, above = (float(np.nextafter(threshold, np.float32(end))) for end in (-np.inf, np.inf))
    rows = np.tile(row, (4, 1))
    rows[:, int(tree.column[node])] = exact, float(threshold), below, above
    return list(rows)


def _reach(place: tuple[trees.Tree, int], parents: dict[int, Any], base: Rows) -> Rows:
    """The row with as few changes as needed to reach a node."""
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
