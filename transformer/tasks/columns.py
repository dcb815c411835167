"""Columns of a table: which values they take, and rows brought to a model's inputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from transformer.errors import InvalidRequest, excerpt
from transformer.triton.model import Model
from transformer.triton.tensors import DTYPES

Array = NDArray[Any]
Rows = Sequence[Any] | Array | Mapping[str, Array]

_FP32_MAX = float(np.finfo(np.float32).max)
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class _Column:
    """The values that a column takes.

    Attributes:
        name: in the model; its number where the model names none.
        text: strings, else numbers.
        missing: whether a row may have no value there.
        only: the values that it takes, where others are errors.
    """

    name: str
    text: bool
    missing: bool
    only: frozenset[Any] | None

    @property
    def expected(self) -> str:
        """The expected value, for messages."""
        if self.only is not None:
            kind = f"one of {_few(sorted(self.only, key=str))}"
        else:
            kind = "a string" if self.text else "an FP32 number"
        return f"{kind}, or null" if self.missing else kind


def count_rows(rows: Rows) -> int:
    """Number of rows."""
    return len(next(iter(rows.values()), ())) if isinstance(rows, Mapping) else len(rows)


def to_inputs(rows: Rows, model: Model) -> dict[str, Array]:
    """Rows as lists (in the model's order), as objects (by name) or as arrays to the model's inputs.

    Args:
        rows: one or many; each `[5.1, null, "Berlin"]` or `{"length": 5.1, ...}`; or numbers `(rows, features)`; or
            `(rows, 1)` of each input of a table with strings, by name, in the model's order, strings as objects.
        model: for its columns.

    Returns:
        Arrays by the name of the input, `(rows, columns)`: numbers as the model takes them, a missing one as NaN;
        strings as objects, a missing one as "".

    Raises:
        InvalidRequest: a row is empty, too short or too long, has unknown names, or a value that its column does not
            take.
    """
    if not count_rows(rows):
        raise InvalidRequest("rows: got none, expected at least one")
    columns = _columns(model)
    if isinstance(rows, Mapping):
        return {name: _array(array, [column]) for (name, array), column in zip(rows.items(), columns, strict=True)}
    if isinstance(rows, np.ndarray):
        return {model.input.name: _table(rows, columns, model)}
    values = [_values(row, columns, model, index=index) for index, row in enumerate(rows)]
    if not is_split(model):
        return {model.input.name: np.array(values, DTYPES[model.input.datatype])}
    arrays = {}
    for place, tensor in enumerate(model.inputs):
        dtype = np.object_ if columns[place].text else DTYPES[tensor.datatype]
        arrays[tensor.name] = np.array([[row[place]] for row in values], dtype)
    return arrays


def is_split(model: Model) -> bool:
    """Whether each column is an input of its own, because there are strings among them."""
    return len(model.inputs) > 1 or model.input.datatype == "BYTES"


def _width(model: Model) -> int:
    """Number of columns; below 1 where any number is valid."""
    return len(model.inputs) if is_split(model) else model.input.dims[-1]


def _columns(model: Model) -> list[_Column]:
    names = model.features or [str(column) for column in range(max(_width(model), 0))]
    texts = [tensor.datatype == "BYTES" for tensor in model.inputs] if is_split(model) else [False] * len(names)
    return [
        _Column(name, text=text, missing=name in model.missing, only=model.categories.get(name))
        for name, text in zip(names, texts, strict=True)
    ]


def _table(rows: Array, columns: Sequence[_Column], model: Model) -> Array:
    width = _width(model)
    if rows.ndim != 2 or is_split(model):
        raise InvalidRequest(f"rows: got shape {list(rows.shape)}, expected [-1, {width}]: {', '.join(model.features)}")
    if width > 0 and rows.shape[1] != width:
        raise _wrong_width(0, rows.shape[1], model)
    return _array(rows, columns).astype(DTYPES[model.input.datatype], copy=False)


def _array(rows: Array, columns: Sequence[_Column]) -> Array:
    """Reject values that a column does not take; `rows` is `(rows, columns)`."""
    if rows.dtype == np.object_:
        (column,) = columns
        for index, value in enumerate(rows[:, 0]):
            _check(value, column, index=index, place=column.name)
        return rows
    # False for NaN too.
    fits = np.abs(rows) <= _FP32_MAX
    for place, column in enumerate(columns[: rows.shape[1]]):
        values = rows[:, place]
        if column.only is not None:
            fits[:, place] &= np.isin(values, list(column.only))
        if column.missing:
            fits[:, place] |= np.isnan(values)
    if not fits.all():
        index, place = np.argwhere(~fits)[0]
        column = columns[place] if place < len(columns) else _ANY
        _reject(
            rows[index, place].item(), column, index=int(index), place=int(place) if len(columns) > 1 else column.name
        )
    return rows


def _wrong_width(index: int, got: int, model: Model) -> InvalidRequest:
    expected = f"{_width(model)}: {', '.join(model.features)}"
    return InvalidRequest(f"row {index}: got {got} values, expected {expected}")


def _values(row: Any, columns: Sequence[_Column], model: Model, *, index: int) -> list[Any]:
    """A row in the model's order; a missing number is NaN, a missing string ""."""
    if isinstance(row, Mapping):
        values = _by_name(row, model, index=index)
    elif isinstance(row, Sequence) and not isinstance(row, str):
        values = list(row)
    else:
        raise InvalidRequest(f"row {index}: got {type(row).__name__}, expected a list or an object of numbers")
    width = _width(model)
    if width > 0 and len(values) != width:
        raise _wrong_width(index, len(values), model)
    known = columns if len(columns) == len(values) else [_ANY] * len(values)
    return [
        _check(value, column, index=index, place=place)
        for place, (value, column) in enumerate(zip(values, known, strict=True))
    ]


def _by_name(row: Mapping[Any, Any], model: Model, *, index: int) -> list[Any]:
    if not model.features:
        raise InvalidRequest(f"row {index}: got an object, but {model.name} does not name its columns: expected a list")
    known = set(model.features)
    missing = [name for name in model.features if name not in row]
    if missing or len(row) > len(known):
        unknown = [name for name in row if name not in known]
        raise InvalidRequest(
            f"row {index}: missing {_few(missing)}, unknown {_few(unknown)}, expected exactly {list(model.features)}"
        )
    return [row[name] for name in model.features]


def _check(value: Any, column: _Column, *, index: int, place: int | str) -> float | str:
    """The value of a cell as number or string.

    Raises:
        InvalidRequest: the column does not take it.
    """
    if column.missing and (_is_missing(value) or (column.text and value == "")):
        return "" if column.text else math.nan
    if column.text:
        # ONNX Runtime's strings end at a NUL.
        fits = isinstance(value, str) and "\0" not in value
    else:
        # JSON's integers have no limit, but FP32 has.
        fits = not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= _FP32_MAX
    if not fits or (column.only is not None and value not in column.only):
        _reject(value, column, index=index, place=place)
    return value if isinstance(value, str) else float(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _reject(value: Any, column: _Column, *, index: int, place: int | str) -> NoReturn:
    named = f" ({column.name[:60]})" if column.text or column.only is not None else ""
    why = "; this model takes no missing value there" if _is_missing(value) else ""
    raise InvalidRequest(f"row {index}, column {place}{named}: got {excerpt(value)}, expected {column.expected}{why}")


def _few(names: Sequence[Any]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return excerpt(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


_ANY = _Column("", text=False, missing=False, only=None)
