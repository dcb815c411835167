"""Transformers of scikit-learn as nodes, with the order of operations and the precision of scikit-learn's code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import preprocessing as sk
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline

from export.errors import ExportError
from export.tables.categories import encode, is_missing
from export.tables.nodes import Column, Frame, Nodes, as_rows
from export.tables.skl2onnx import convert_part


def transform(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    """The columns that a fitted transformer makes of others.

    Raises:
        ExportError: it cannot be written as a graph.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return list(frame)
    if isinstance(step, str) and step == "drop":
        return []
    write = _WRITERS.get(type(step))
    if write is not None:
        return write(nodes, step, frame)
    if isinstance(step, SelectorMixin):
        return [frame[index] for index in step.get_support(indices=True)]
    reject_text(frame, step)
    (tensor, *_), width = convert_part(nodes, step, nodes.join(frame), width=len(frame))
    return nodes.frame(tensor, width)


def transform_all(nodes: Nodes, steps: Sequence[tuple[str, Any]], frame: Frame) -> list[Column]:
    """The columns that the steps of a pipeline make of others, one step after the other."""
    columns = list(frame)
    for _, step in steps:
        columns = transform(nodes, step, columns)
    return columns


def reject_text(frame: Frame, step: Any) -> None:
    """Reject columns of strings for a step that takes numbers.

    Raises:
        ExportError: a column holds strings.
    """
    if any(column.text for column in frame):
        raise ExportError(
            f"{type(step).__name__}: got columns of strings, expected numbers: strings are served where a "
            "OneHotEncoder, an OrdinalEncoder or a TargetEncoder takes them"
        )


def _arithmetic(*steps: tuple[str, str]) -> Callable[[Nodes, Any, Frame], list[Column]]:
    """A writer of operators with a fitted attribute as operand each; an attribute that is None is skipped."""

    def write(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
        reject_text(frame, step)
        tensor = nodes.join(frame)
        for operator, attribute in steps:
            value = getattr(step, attribute)
            if value is not None:
                tensor = nodes.add(operator, tensor, nodes.constant(as_rows(value)))
        return nodes.frame(tensor, len(frame))

    return write


def _min_max(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    scaled = _arithmetic(("Mul", "scale_"), ("Add", "min_"))(nodes, step, frame)
    if not step.clip:
        return scaled
    low, high = (nodes.constant(bound) for bound in step.feature_range)
    return nodes.frame(nodes.add("Clip", nodes.join(scaled), low, high), len(frame))


def _binarize(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    reject_text(frame, step)
    above = nodes.add("Greater", nodes.join(frame), nodes.constant(step.threshold))
    return nodes.frame(nodes.cast(above, nodes.number), len(frame))


def _power(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    """Box-Cox and Yeo-Johnson; the latter is the former of 1 + x above zero, and mirrored below."""
    reject_text(frame, step)
    tensor, powers = nodes.join(frame), np.asarray(step.lambdas_)
    if step.method == "box-cox":
        powered = _box_cox(nodes, tensor, powers)
    else:
        zero, one = nodes.constant(0), nodes.constant(1)
        above = _box_cox(nodes, nodes.add("Add", nodes.add("Max", tensor, zero), one), powers)
        below = _box_cox(nodes, nodes.add("Sub", one, nodes.add("Min", tensor, zero)), 2 - powers)
        powered = nodes.add("Sub", above, below)
    columns = nodes.frame(powered, len(frame))
    return transform(nodes, step._scaler, columns) if step.standardize else columns


def _box_cox(nodes: Nodes, tensor: str, powers: Any) -> str:
    """`(x ** power - 1) / power`, and its limit, the logarithm, where a power is 0."""
    is_log = np.abs(powers) < np.finfo(np.float64).eps
    safe = nodes.constant(as_rows(np.where(is_log, 1, powers)))
    power = nodes.add("Div", nodes.add("Sub", nodes.add("Pow", tensor, safe), nodes.constant(1)), safe)
    if not is_log.any():
        return power
    return nodes.add("Where", nodes.constant(as_rows(is_log), np.bool_), nodes.add("Log", tensor), power)


def _polynomial(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    """Products of as many factors as the highest degree; a product of fewer is padded with 1."""
    reject_text(frame, step)
    tensor = nodes.join(frame)
    one = nodes.add("Add", nodes.add("Mul", _gather(nodes, tensor, [0]), nodes.constant(0)), nodes.constant(1))
    extended = nodes.add("Concat", tensor, one, axis=1)
    factors = [np.repeat(np.arange(len(frame)), powers).tolist() for powers in step.powers_]
    degree = max(1, *map(len, factors))
    padded = [indices + [len(frame)] * (degree - len(indices)) for indices in factors]
    product = _gather(nodes, extended, [indices[0] for indices in padded])
    for place in range(1, degree):
        product = nodes.add("Mul", product, _gather(nodes, extended, [indices[place] for indices in padded]))
    return nodes.frame(product, len(padded))


def _gather(nodes: Nodes, tensor: str, indices: Sequence[int]) -> str:
    return nodes.add("Gather", tensor, nodes.constant(indices, np.int64), axis=1)


def _impute(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    kept = [index for index, value in enumerate(step.statistics_) if not is_missing(value) or step.keep_empty_features]
    filled: list[Column] = []
    if any(column.text for column in frame):
        if step.add_indicator:
            raise ExportError("SimpleImputer: add_indicator is not exported for columns of strings")
        if not is_missing(step.missing_values):
            raise ExportError(f"SimpleImputer: got missing_values={step.missing_values!r} of strings, expected nan")
        for index in kept:
            column, value = frame[index], step.statistics_[index]
            tensor = nodes.join([column])
            whether = nodes.cast_bool(nodes.add_lookup(tensor, {"": 1}, default=0))
            fill = nodes.constant([[str(value)]], np.object_)
            filled += nodes.moved([column], nodes.add("Where", whether, fill, tensor))
        return filled
    columns = [frame[index] for index in kept]
    tensor = nodes.join(columns)
    missing = _find_missing(nodes, tensor, step.missing_values)
    statistics = [0 if is_missing(step.statistics_[index]) else step.statistics_[index] for index in kept]
    filled = nodes.moved(columns, nodes.add("Where", missing, nodes.constant(as_rows(statistics)), tensor))
    if step.add_indicator and len(step.indicator_.features_):
        watched = [frame[index] for index in step.indicator_.features_]
        flags = nodes.cast(_find_missing(nodes, nodes.join(watched), step.missing_values), nodes.number)
        filled += nodes.frame(flags, len(watched))
    return filled


def _find_missing(nodes: Nodes, tensor: str, value: Any) -> str:
    if is_missing(value):
        return nodes.add("IsNaN", tensor)
    return nodes.add("Equal", tensor, nodes.constant(value))


def _bin(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    """The bin of a value: the number of inner edges that it has reached."""
    reject_text(frame, step)
    parts = []
    for column, edges in zip(frame, step.bin_edges_, strict=True):
        reached = nodes.add("GreaterOrEqual", nodes.join([column]), nodes.constant(as_rows(edges[1:-1])))
        # One bin has no inner edges; the zero keeps a column to sum.
        zero = nodes.add("Mul", nodes.join([column]), nodes.constant(0))
        flags = nodes.add("Concat", zero, nodes.cast(reached, nodes.number), axis=1)
        number = nodes.add("ReduceSum", flags, nodes.constant([1], np.int64), keepdims=1)
        if step.encode == "ordinal":
            parts += nodes.frame(number, 1)
        else:
            bins = as_rows(np.arange(len(edges) - 1))
            hits = nodes.add("Equal", number, nodes.constant(bins))
            parts += nodes.frame(nodes.cast(hits, nodes.number), bins.shape[1])
    return parts


def _columns(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    names = list(getattr(step, "feature_names_in_", ()))
    parts: list[Column] = []
    for name, part, chosen in step.transformers_:
        if indices := chosen_indices(chosen, len(frame), names):
            columns = transform(nodes, part, [frame[index] for index in indices])
            parts += _weighted(nodes, columns, step.transformer_weights, name)
    return parts


def _weighted(nodes: Nodes, columns: Frame, weights: Mapping[str, float] | None, name: str) -> Frame:
    """Columns of a part, times its weight where it has one."""
    if not weights or name not in weights or not columns:
        return columns
    return nodes.frame(nodes.add("Mul", nodes.join(columns), nodes.constant(weights[name])), len(columns))


def chosen_indices(chosen: Any, width: int, names: Sequence[Any]) -> list[int]:
    """Indices of the columns that a ColumnTransformer selects by names, numbers, a slice or a mask.

    Raises:
        ExportError: a name is unknown.
    """
    if isinstance(chosen, slice) and not any(isinstance(end, str) for end in (chosen.start, chosen.stop)):
        return list(range(width))[chosen]
    if isinstance(chosen, slice):
        start = names.index(chosen.start) if chosen.start is not None else 0
        stop = names.index(chosen.stop) + 1 if chosen.stop is not None else width
        return list(range(start, stop))
    entries = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if entries and all(isinstance(entry, bool | np.bool_) for entry in entries):
        return [index for index, wanted in enumerate(entries) if wanted]
    try:
        return [names.index(entry) if isinstance(entry, str) else int(entry) % width for entry in entries]
    except (ValueError, TypeError, ZeroDivisionError) as exc:
        raise ExportError(f"ColumnTransformer: got columns {entries[:5]}, expected some of {list(names)[:5]}") from exc


def _union(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    parts: list[Column] = []
    for name, part in step.transformer_list:
        parts += _weighted(nodes, transform(nodes, part, frame), step.transformer_weights, name)
    return parts


def _function(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    if step.func is None:
        return list(frame)
    reject_text(frame, step)
    operators = _FUNCTIONS.get(step.func)
    if operators is None or step.kw_args:
        name = getattr(step.func, "__name__", "a function")
        known = ", ".join(function.__name__ for function in _FUNCTIONS)
        raise ExportError(f"FunctionTransformer: got {name}, expected none or one of NumPy's {known}")
    tensor = nodes.join(frame)
    for operator, constant in operators:
        tensor = nodes.add(operator, tensor, *([] if constant is None else [nodes.constant(constant)]))
    return nodes.frame(tensor, len(frame))


_FUNCTIONS: Mapping[Any, Sequence[tuple[str, float | None]]] = {
    np.log1p: [("Add", 1), ("Log", None)],
    np.expm1: [("Exp", None), ("Sub", 1)],
    np.log: [("Log", None)],
    np.exp: [("Exp", None)],
    np.sqrt: [("Sqrt", None)],
    np.abs: [("Abs", None)],
    np.square: [("Pow", 2)],
}
_WRITERS: Mapping[type, Callable[[Nodes, Any, Frame], list[Column]]] = {
    sk.StandardScaler: _arithmetic(("Sub", "mean_"), ("Div", "scale_")),
    sk.RobustScaler: _arithmetic(("Sub", "center_"), ("Div", "scale_")),
    sk.MaxAbsScaler: _arithmetic(("Div", "scale_")),
    sk.MinMaxScaler: _min_max,
    sk.Binarizer: _binarize,
    sk.PowerTransformer: _power,
    sk.PolynomialFeatures: _polynomial,
    sk.OneHotEncoder: encode,
    sk.OrdinalEncoder: encode,
    sk.TargetEncoder: encode,
    sk.KBinsDiscretizer: _bin,
    sk.FunctionTransformer: _function,
    SimpleImputer: _impute,
    ColumnTransformer: _columns,
    FeatureUnion: _union,
    FrozenEstimator: lambda nodes, step, frame: transform(nodes, step.estimator, frame),
    Pipeline: lambda nodes, step, frame: transform_all(nodes, step.steps, frame),
}
