"""Tables: rows in, a class or a value for each row out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transformer.errors import InvalidRequest, PredictorError, excerpt
from transformer.model import Model
from transformer.work import FEW_VALUES, LITTLE_ARRAY

Rows = Sequence[Any] | NDArray[np.float32] | NDArray[np.float64]

_FP32_MAX = float(np.finfo(np.float32).max)
_NAMES_SHOWN = 5


def is_little(rows: Rows) -> bool:
    """Whether `preprocess` has little work, whatever the model takes."""
    if isinstance(rows, np.ndarray):
        return rows.size <= LITTLE_ARRAY
    return len(rows) + sum(len(row) for row in rows if isinstance(row, list | dict)) <= FEW_VALUES


def preprocess(rows: Rows, model: Model) -> NDArray[np.float32]:
    """Rows as lists (in the model's order), as objects (by name) or as an array to one array.

    Args:
        rows: one or many; each `[5.1, 3.5, ...]` or `{"sepal length (cm)": 5.1, ...}`; or FP32 or FP64
            `(rows, features)`.
        model: says how many columns there are and their names.

    Returns:
        FP32 `(rows, features)`.

    Raises:
        InvalidRequest: a row is empty, too short or too long, has unknown names or something that is no number.
    """
    if not len(rows):
        raise InvalidRequest("rows: got none, expected at least one")
    if isinstance(rows, np.ndarray):
        return _table(rows, model)
    return np.array([_row(row, model, index=index) for index, row in enumerate(rows)], np.float32)


def postprocess(outputs: Mapping[str, NDArray[Any]], model: Model) -> NDArray[np.float32]:
    """Probabilities `(rows, classes)` of a classifier, values `(rows, 1)` of a regressor.

    Raises:
        PredictorError: the output has another shape.
    """
    output = outputs[model.outputs[0].name].astype(np.float32, copy=False)
    columns = model.classes or 1
    if output.ndim != 2 or output.shape[1] != columns:
        raise PredictorError(f"{model.name}: got output {output.shape}, expected (rows, {columns})")
    return output


def _table(rows: NDArray[Any], model: Model) -> NDArray[np.float32]:
    width = model.input.dims[-1]
    if rows.ndim != 2:
        raise InvalidRequest(f"rows: got shape {list(rows.shape)}, expected [-1, {width}]: {', '.join(model.features)}")
    if width > 0 and rows.shape[1] != width:
        raise _wrong_width(0, rows.shape[1], model)
    # Also false for what is no number.
    fits = np.abs(rows) <= _FP32_MAX
    if not fits.all():
        index, column = np.argwhere(~fits)[0]
        raise InvalidRequest(f"row {index}, column {column}: got {rows[index, column]}, expected an FP32 number")
    return rows.astype(np.float32, copy=False)


def _wrong_width(index: int, got: int, model: Model) -> InvalidRequest:
    expected = f"{model.input.dims[-1]}: {', '.join(model.features)}"
    return InvalidRequest(f"row {index}: got {got} values, expected {expected}")


def _row(row: Any, model: Model, *, index: int) -> list[float]:
    if isinstance(row, Mapping):
        if not model.features:
            raise InvalidRequest(
                f"row {index}: got an object, but {model.name} does not name its columns: expected a list"
            )
        known = set(model.features)
        missing = [name for name in model.features if name not in row]
        if missing or len(row) > len(known):
            unknown = [name for name in row if name not in known]
            raise InvalidRequest(
                f"row {index}: missing {_few(missing)}, unknown {_few(unknown)},"
                f" expected exactly {list(model.features)}"
            )
        values = [row[name] for name in model.features]
    elif isinstance(row, Sequence) and not isinstance(row, str):
        values = list(row)
    else:
        raise InvalidRequest(f"row {index}: got {type(row).__name__}, expected a list or an object of numbers")
    width = model.input.dims[-1]
    if width > 0 and len(values) != width:
        raise _wrong_width(index, len(values), model)
    for column, value in enumerate(values):
        # JSON's integers have no limit, and FP32 has: what does not fit is no number here.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FP32_MAX:
            raise InvalidRequest(f"row {index}, column {column}: got {excerpt(value)}, expected an FP32 number")
    return [float(value) for value in values]


def _few(names: Sequence[Any]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return excerpt(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
