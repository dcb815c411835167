"""Rows in tensors of the v2 protocol: one table of numbers, or each column as a tensor of its own."""

from typing import Any

import numpy as np

from transformer.errors import InvalidRequest
from transformer.protocol.v2_messages import InferRequest
from transformer.tasks.task import RowsTask
from transformer.triton.model import Model
from transformer.triton.tensors import DTYPES, Tensor, to_array, to_elements

_ROW_DATATYPES = ("FP32", "FP64")
_COLUMN_DATATYPES = frozenset(DTYPES) - {"BOOL"}


def holds_rows(request: InferRequest, model: Model, task: RowsTask) -> bool:
    """Whether a request is for the task, and not for the model's own tensors."""
    if {tensor.name for tensor in request.inputs} != {own.name for own in model.inputs}:
        return False
    ours = {output.name for output in task.outputs(model)}
    own = {output.name for output in model.outputs}
    # A request for an output that only the model has is for the model.
    if request.classes or (set(request.outputs) - ours) & own:
        return False
    if not task.is_split(model):
        return request.inputs[0].datatype in _ROW_DATATYPES
    texts = {tensor.name: tensor.datatype == "BYTES" for tensor in model.inputs}
    return all(
        tensor.datatype == "BYTES" if texts[tensor.name] else tensor.datatype in _COLUMN_DATATYPES
        for tensor in request.inputs
    )


def read_rows(request: InferRequest, model: Model, task: RowsTask) -> Any:
    """The rows of a table, or each of its columns by name, in the model's order.

    Raises:
        InvalidRequest: columns of different lengths, or a value that the model cannot take.
    """
    for tensor in request.inputs:
        if not tensor.shape:
            raise InvalidRequest(f"input {tensor.name!r}: shape: got [], expected {list(model.input.shape)}")
    if not task.is_split(model):
        return to_array(request.inputs[0])
    given = {tensor.name: tensor for tensor in request.inputs}
    columns = {own.name: _read_column(given[own.name], model) for own in model.inputs}
    counts = {len(column) for column in columns.values()}
    if len(counts) != 1:
        lengths = ", ".join(f"{name!r} {len(column)}" for name, column in list(columns.items())[:5])
        raise InvalidRequest(f"inputs: got columns of different lengths ({lengths}), expected one value for each row")
    return columns


def _read_column(tensor: Tensor, model: Model) -> Any:
    if len(tensor.shape) > 2 or tensor.shape[1:] not in {(), (1,)}:
        raise InvalidRequest(f"input {tensor.name!r}: shape: got {list(tensor.shape)}, expected [n] or [n, 1]")
    if tensor.has_null and tensor.name not in model.missing:
        raise InvalidRequest(f"input {tensor.name!r}: data: got null; this model takes no missing value there")
    if tensor.datatype != "BYTES":
        return to_array(tensor).reshape(-1, 1).astype(DTYPES[_datatype(tensor.name, model)])
    try:
        texts = [element.decode() for element in to_elements(tensor)]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"input {tensor.name!r}: got bytes that are not UTF-8, expected strings") from exc
    return np.array(texts, np.object_).reshape(-1, 1)


def _datatype(name: str, model: Model) -> str:
    return next(tensor.datatype for tensor in model.inputs if tensor.name == name)
