"""Categories, as numbers or strings, in the codes that an encoder gives them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import preprocessing as sk

from export.errors import ExportError
from export.tables.nodes import Column, Frame, Nodes, as_rows

_PROBES = 256  # that are encoded at once: dense ones may have thousands of outputs


def is_missing(value: Any) -> bool:
    """Whether it is what scikit-learn and pandas write for a missing value."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or (not isinstance(value, str | int | np.integer) and str(value) == "<NA>")


def encode(nodes: Nodes, step: Any, frame: Frame) -> list[Column]:
    """Categories in the codes of the encoder itself, which encodes each of them once, and an unknown one."""
    names = [list(categories) for categories in step.categories_]
    kind = type(step).__name__
    strict = getattr(step, "handle_unknown", "") == "error"
    parts = []
    for place, column in enumerate(frame):
        if strict:
            if column.origin is None:
                raise ExportError(
                    f"{kind}: got handle_unknown='error' after other steps, expected it on columns of the table: "
                    "which values are errors is unknown"
                )
            nodes.only[column.origin] = [plain(name) for name in names[place] if not is_missing(name)]
        first, last = _span(step, names, place)
        if last > first:
            table = _codes(step, names, place, span=slice(first, last), strict=strict)
            index = find_index(nodes, column, names[place], kind)
            wide = isinstance(step, sk.OneHotEncoder)
            encoded = (_one_hot if wide else _look_up)(nodes, table, index, last - first)
            parts += nodes.frame(encoded, last - first)
    return parts


def _look_up(nodes: Nodes, table: NDArray[np.float64], index: str, _width: int) -> str:
    return nodes.add("Gather", nodes.constant(table), index, axis=0)


def _one_hot(nodes: Nodes, table: NDArray[np.float64], index: str, width: int) -> str:
    """Compares the index of the output that is 1 with every index: a lookup table would be square in the categories."""
    hit = nodes.add("Gather", nodes.constant(table), index, axis=0)
    flags = nodes.cast(nodes.add("Equal", hit, nodes.constant(as_rows(np.arange(width)))), nodes.number)
    # A value that is an error of the encoder becomes NaN.
    return nodes.add("Add", flags, nodes.add("Mul", hit, nodes.constant(0))) if np.isnan(table).any() else flags


def _codes(step: Any, names: Sequence[Sequence[Any]], place: int, *, span: slice, strict: bool) -> NDArray[np.float64]:
    """The code of each category of a column, and in the last row that of an unknown value.

    Returns:
        `(categories + 1, outputs)`; of a OneHotEncoder the only output that is 1, `(categories + 1, 1)`, -1 for none.
    """
    probes = [*names[place], *([] if strict else [_unknown(names[place])])]
    rows = np.empty((len(probes), len(names)), np.object_)
    rows[:] = [own[0] for own in names]
    rows[:, place] = probes
    if all(np.asarray(own).dtype.kind in "biuf" for own in step.categories_):
        rows = rows.astype(np.float64)
    pieces = [_encode(step, rows[start : start + _PROBES], span) for start in range(0, len(rows), _PROBES)]
    if strict:
        pieces.append(np.full((1, pieces[0].shape[1]), np.nan))
    return np.vstack(pieces)


def _encode(step: Any, rows: NDArray[Any], span: slice) -> NDArray[np.float64]:
    encoded = step.transform(rows)
    own: NDArray[np.float64] = np.asarray(encoded.toarray() if hasattr(encoded, "toarray") else encoded)[:, span]
    if isinstance(step, sk.OneHotEncoder):
        own = np.where(own.any(axis=1), own.argmax(axis=1), -1.0)[:, None]
    return own


def _span(step: Any, names: Sequence[Any], place: int) -> tuple[int, int]:
    """Where the outputs of a column lie among those of the encoder."""
    if isinstance(step, sk.OneHotEncoder):
        widths = list(step._n_features_outs)
    else:
        each = len(step.encodings_) // len(names) if isinstance(step, sk.TargetEncoder) else 1
        widths = [each] * len(names)
    first = sum(widths[:place])
    return first, first + widths[place]


def _unknown(names: Sequence[Any]) -> Any:
    """A value that is not among the categories."""
    if any(isinstance(name, str) for name in names):
        return "?".join(["", *(name for name in names if isinstance(name, str))])
    return float(max((float(name) for name in names if not is_missing(name)), default=0)) + 1


def find_index(nodes: Nodes, column: Column, names: Sequence[Any], kind: str) -> str:
    """Index of the category of each value, INT64 `(batch,)`; one past the last for an unknown value."""
    tensor = nodes.join([column])
    if column.text:
        codes: dict[str, int] = {}
        for code, name in enumerate(names):
            text = "" if is_missing(name) else name
            if not isinstance(text, str) or text in codes:
                raise ExportError(f"{kind}: got categories {[*names][:5]}, expected strings only, each once")
            codes[text] = code
        index = nodes.add_lookup(tensor, codes, default=len(names))
    else:
        if any(isinstance(name, str) for name in names):
            raise ExportError(f"{kind}: got categories {[*names][:3]} of a column of numbers, expected numbers")
        known = as_rows([0.0 if is_missing(name) else float(name) for name in names])
        missing = as_rows([is_missing(name) for name in names])
        hits = nodes.add("Equal", tensor, nodes.constant(known))
        if missing.any():
            hits = nodes.add("And", hits, nodes.constant(~missing, np.bool_))
            is_nan = nodes.add("And", nodes.add("IsNaN", tensor), nodes.constant(missing, np.bool_))
            hits = nodes.add("Or", hits, is_nan)
        padded = nodes.add(
            "Pad", nodes.cast(hits, nodes.number), nodes.constant([0, 0, 0, 1], np.int64), nodes.constant(0.5)
        )
        index = nodes.add("ArgMax", padded, axis=1, keepdims=0)
    return nodes.add("Reshape", index, nodes.constant([-1], np.int64))


def plain(value: Any) -> Any:
    """A category as a value of JSON and of Python literals."""
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if isinstance(value, bool) else value
