"""Decision trees of scikit-learn and XGBoost as one TreeEnsembleRegressor that compares in their precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from export.tables.nodes import Nodes

_MOST_CATEGORIES = 2**24  # XGBoost takes a larger code for missing: FP32 holds integers up to here


@dataclass(frozen=True)
class Split:
    """Which categories of a column go to which child.

    Attributes:
        column: holds codes.
        left, right: codes that go to this child.
        unknown_is_missing: whether any other code is a missing value; else it goes left.
    """

    column: int
    left: frozenset[int]
    right: frozenset[int]
    unknown_is_missing: bool


@dataclass(frozen=True)
class Tree:
    """One tree; node 0 is its root.

    Attributes:
        left, right: children of each node; -1 of a leaf.
        column: that a node compares.
        threshold: at most, or below, which a row goes left.
        missing_left: whether a missing value goes left.
        values: `(nodes, outputs)`, what a leaf adds to each output.
        categories: splits by category, by node.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    column: NDArray[np.int64]
    threshold: NDArray[Any]
    missing_left: NDArray[np.bool_]
    values: NDArray[Any]
    categories: Mapping[int, Split] = field(default_factory=dict)


def add_trees(  # noqa: PLR0913 - one argument for each fact
    nodes: Nodes, rows: str, trees: Sequence[Tree], *, width: int, base: Any, mode: str, number: str = "FP64"
) -> str:
    """The sum of trees: FP32 `(batch, outputs)`.

    Args:
        nodes: the graph.
        rows: tensor `(batch, width)`.
        trees: one or more.
        width: columns.
        base: what is added to each output.
        mode: `BRANCH_LEQ` where a value equal to the threshold goes left, else `BRANCH_LT`.
        number: `FP64` or `FP32`: type of the comparisons and of the sum.
    """
    dtype = np.float64 if number == "FP64" else np.float32
    rows, places = _look_up(nodes, nodes.cast(rows, number), trees, width=width, dtype=dtype)
    outputs = trees[0].values.shape[1]
    of_node: dict[str, list[Any]] = {key: [] for key in _OF_NODE}
    of_target: dict[str, list[Any]] = {key: [] for key in _OF_TARGET}
    for index, tree in enumerate(trees):
        _list_nodes(tree, places, of_node, of_target, index=index, mode=mode)
    numbers = {
        "nodes_values": of_node.pop("nodes_values"),
        "target_weights": of_target.pop("target_weights"),
        "base_values": np.broadcast_to(np.asarray(base, dtype), outputs),
    }
    arrays = {key: np.asarray(values, dtype) for key, values in numbers.items()}
    suffix = "_as_tensor" if number == "FP64" else ""
    large = {
        f"{key}{suffix}": numpy_helper.from_array(array, key) if suffix else array.tolist()
        for key, array in arrays.items()
    }
    return nodes.add(
        "TreeEnsembleRegressor", rows, domain="ai.onnx.ml", n_targets=outputs, **of_node, **of_target, **large
    )


def _list_nodes(  # noqa: PLR0913 - one argument for each fact
    tree: Tree,
    places: Mapping[Split, int],
    of_node: Mapping[str, list[Any]],
    of_target: Mapping[str, list[Any]],
    *,
    index: int,
    mode: str,
) -> None:
    """Append the nodes of a tree, number `index` of all, to the attributes of the operator."""
    for node in range(len(tree.left)):
        leaf = tree.left[node] < 0
        split = tree.categories.get(node)
        entry = (
            index,
            node,
            0 if leaf else places[split] if split else int(tree.column[node]),
            "LEAF" if leaf else mode,
            0.0 if leaf else 0.5 if split else tree.threshold[node],
            0 if leaf else int(tree.left[node]),
            0 if leaf else int(tree.right[node]),
            int(not leaf and bool(tree.missing_left[node])),
        )
        for key, value in zip(_OF_NODE, entry, strict=True):
            of_node[key].append(value)
        for target, value in enumerate(tree.values[node] if leaf else ()):
            for key, part in zip(_OF_TARGET, (index, node, target, value), strict=True):
                of_target[key].append(part)


_OF_NODE = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
)
_OF_TARGET = ("target_treeids", "target_nodeids", "target_ids", "target_weights")


def _look_up(nodes: Nodes, rows: str, trees: Sequence[Tree], *, width: int, dtype: Any) -> tuple[str, dict[Split, int]]:
    """Add a column for each split by category: 0 for a code that goes left, 1 right, NaN for a missing one.

    ONNX has no test for a set before ai.onnx.ml 5, which the oldest Triton does not run.
    """
    splits = list(dict.fromkeys(split for tree in trees for split in tree.categories.values()))
    places: dict[Split, int] = {}
    parts, at = [rows], width
    for column in dict.fromkeys(split.column for split in splits):
        own = [split for split in splits if split.column == column]
        table = _side_of_code(own, dtype)
        places |= {split: at + place for place, split in enumerate(own)}
        at += len(own)
        row = _row_of_code(nodes, rows, column, size=len(table) - 2, dtype=dtype)
        parts.append(nodes.add("Gather", nodes.constant(table, dtype), row, axis=0))
    return (nodes.add("Concat", *parts, axis=1) if splits else rows), places


def _side_of_code(splits: Sequence[Split], dtype: Any) -> NDArray[Any]:
    """`(codes + 2, splits)`: where each code goes, in the last but one row a larger code, in the last a missing one."""
    size = max(max(split.left | split.right, default=0) for split in splits) + 1
    table = np.zeros((size + 2, len(splits)), dtype)
    for place, split in enumerate(splits):
        if split.unknown_is_missing:
            table[:, place] = np.nan
        table[list(split.left), place] = 0
        table[list(split.right), place] = 1
    table[-1] = np.nan
    return table


def _row_of_code(nodes: Nodes, rows: str, column: int, *, size: int, dtype: Any) -> str:
    """Row of `_side_of_code` for the code in a column: `size` for a larger one, `size + 1` for another value."""
    value = nodes.add("Gather", rows, nodes.constant([column], np.int64), axis=1)
    is_code = nodes.add(
        "And",
        nodes.add("GreaterOrEqual", value, nodes.constant(0, dtype)),
        nodes.add("Less", value, nodes.constant(_MOST_CATEGORIES, dtype)),
    )
    code = nodes.add("Min", value, nodes.constant(size, dtype))
    code = nodes.add("Where", is_code, code, nodes.constant(size + 1, dtype))
    return nodes.add("Reshape", nodes.add("Cast", code, to=7), nodes.constant([-1], np.int64))


def of_sklearn(estimator: Any, *, outputs: int, share: float) -> Tree:
    """A fitted tree of scikit-learn; values of its leaves, divided by their sum for a classifier, times `share`."""
    tree = estimator.tree_
    values = tree.value[:, 0, :].astype(np.float64)
    if outputs > 1 or hasattr(estimator, "classes_"):
        values = values / values.sum(axis=1, keepdims=True)
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        column=tree.feature,
        threshold=tree.threshold,
        missing_left=tree.missing_go_to_left.astype(bool),
        values=values * share,
    )


def of_histogram(predictor: Any, known: Mapping[int, frozenset[int]], *, output: int, outputs: int) -> Tree:
    """A tree of a HistGradientBoosting model, which adds to one output.

    Args:
        predictor: scikit-learn's `TreePredictor`.
        known: codes of each column that holds categories.
        output: to which its leaves add.
        outputs: how many there are.
    """
    node = predictor.nodes
    leaf = node["is_leaf"].astype(bool)
    values = np.zeros((len(node), outputs))
    values[:, output] = node["value"]
    categories = {}
    for index in np.flatnonzero(node["is_categorical"].astype(bool) & ~leaf):
        column = int(node["feature_idx"][index])
        words = predictor.raw_left_cat_bitsets[node["bitset_idx"][index]]
        left = frozenset(code for code in range(32 * len(words)) if int(words[code // 32]) >> (code % 32) & 1)
        categories[int(index)] = Split(column, left, known[column] - left, unknown_is_missing=True)
    return Tree(
        left=np.where(leaf, -1, node["left"].astype(np.int64)),
        right=np.where(leaf, -1, node["right"].astype(np.int64)),
        column=node["feature_idx"].astype(np.int64),
        # The threshold of a split that separates missing values only is infinite.
        threshold=np.minimum(node["num_threshold"], np.finfo(np.float64).max),
        missing_left=node["missing_go_to_left"].astype(bool),
        values=values,
        categories=categories,
    )


def of_xgboost(tree: Mapping[str, Any], *, weight: float, output: int, outputs: int) -> Tree:
    """A tree as XGBoost writes it in JSON; `weight` is that of dart.

    Args:
        tree: of `trees`.
        weight: of its leaves.
        output: to which its leaves add, where each has one number.
        outputs: how many there are.
    """
    left = np.asarray(tree["left_children"], np.int64)
    leaf = left < 0
    conditions = np.asarray(tree["split_conditions"], np.float32)
    values = np.zeros((len(left), outputs), np.float32)
    size = int(tree["tree_param"]["size_leaf_vector"])
    if size > 1:
        weights = np.asarray(tree["leaf_weights"], np.float32).reshape(-1, size)
        values[leaf] = weights[np.asarray(tree["right_children"])[leaf]]
    else:
        values[leaf, output] = conditions[leaf]
    categories = {}
    segments = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, start, count in segments:
        column = int(tree["split_indices"][node])
        right = frozenset(int(code) for code in tree["categories"][start : start + count])
        categories[int(node)] = Split(column, frozenset(), right, unknown_is_missing=False)
    return Tree(
        left=left,
        right=np.where(leaf, -1, np.asarray(tree["right_children"], np.int64)),
        column=np.asarray(tree["split_indices"], np.int64),
        threshold=conditions,
        missing_left=np.asarray(tree["default_left"], bool),
        values=values * np.float32(weight),
        categories=categories,
    )
