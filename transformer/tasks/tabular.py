"""Tables: rows in, a class or a value for each row out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transformer.errors import PredictorError
from transformer.offload import ARRAY_VALUE, CELL
from transformer.tasks.classify import describe_probabilities, write_probabilities
from transformer.tasks.columns import Rows, count_rows, is_split, to_inputs
from transformer.tasks.labels import class_name, round_score
from transformer.tasks.schemas import CLASS, FRACTION, NUMBER, STRING, array_of, object_of
from transformer.tasks.task import Array, RowsPrediction, RowsTask, Schema, Write, largest_difference, register
from transformer.triton.model import Model, ModelConfigError, TensorMetadata

_ROW_JSON_BYTES, _PROBABILITY_JSON_BYTES = 100, 80


@dataclass(frozen=True)
class Table(RowsPrediction):
    """Classes or values of rows.

    Attributes:
        values: `(rows, classes)` probabilities of a classifier, `(rows, 1)` values of a regressor.
    """

    values: NDArray[np.float32]

    @property
    def json_bytes(self) -> int:
        """Estimated from the number of rows and classes."""
        return len(self.values) * _ROW_JSON_BYTES + self.values.size * _PROBABILITY_JSON_BYTES

    def to_json(self, model: Model) -> list[dict[str, Any]]:
        """Class and probabilities by name, or by index where names repeat; the value of a regressor."""
        if not model.names:
            return [{"value": float(value)} for (value,) in self.values]
        keys = [class_name(model, class_id) for class_id in range(self.values.shape[1])]
        if len(set(keys)) < len(keys):  # two classes of one name would be one key
            keys = [str(class_id) for class_id in range(len(keys))]
        return [
            {
                "class": class_name(model, int(best)),
                "class_id": int(best),
                "confidence": round_score(row[best]),
                "probabilities": {keys[class_id]: round_score(p) for class_id, p in enumerate(row)},
            }
            for row, best in zip(self.values, self.values.argmax(axis=1), strict=True)
        ]

    def to_tensors(self, model: Model) -> Mapping[str, Write]:
        """Probabilities and the best class of each row, or the values of a regressor."""
        return write_probabilities(self.values) if model.names else {"values": lambda: self.values[:, 0]}

    def compare(self, expected: "Table") -> Mapping[str, float]:
        """The largest difference of a probability or value."""
        return {"values": largest_difference(self.values, expected.values)}


class Tabular(RowsTask):
    """Rows to classes or values."""

    name = "tabular"
    schema_name = "Row"
    schema: ClassVar[Schema] = {
        "oneOf": [
            object_of(
                CLASS | {"probabilities": {"type": "object", "additionalProperties": FRACTION}}, title="ClassifiedRow"
            ),
            object_of({"value": NUMBER}, title="ValuedRow"),
        ]
    }
    metadata_schema: ClassVar[Schema] = {
        "features": array_of(STRING),
        "missing": array_of(STRING),
        "categories": {"type": "object", "additionalProperties": array_of({"type": ["string", "number"]})},
    }
    tolerances: ClassVar[Mapping[str, float]] = {"values": 1e-4}

    def check(self, model: Model) -> None:
        """One input of numbers; or one for each feature, of its name, so that there may be strings."""
        names = [tensor.name for tensor in model.inputs]
        texts = any(tensor.datatype == "BYTES" for tensor in model.inputs)
        if not model.inputs or not model.outputs or not all(tensor.shape for tensor in model.inputs):
            fits = False
        elif names == list(model.features) and is_split(model):
            fits = all(tensor.dims == (1,) for tensor in model.inputs)
        else:
            fits = len(names) == 1 and not texts
        if not fits:
            raise ModelConfigError(
                f"{model.name}: got {len(names)} inputs and {len(model.outputs)} outputs, expected one input, or of a "
                "table one [1] for each feature, under its name"
            )

    def inputs(self, model: Model) -> Sequence[TensorMetadata]:
        """The model's own inputs; those of columns without their second dimension."""
        if not is_split(model):
            return model.inputs
        return [TensorMetadata(tensor.name, tensor.datatype, (-1,)) for tensor in model.inputs]

    def outputs(self, model: Model) -> Sequence[TensorMetadata]:
        """JSON; probabilities and class, or values."""
        values = [TensorMetadata("values", "FP32", (-1,))]
        return [
            TensorMetadata(self.json_output, "BYTES", (-1,)),
            *(describe_probabilities(model) if model.names else values),
        ]

    def metadata(self, model: Model) -> dict[str, Any]:
        """Names of the columns, which may have no value, and which take certain values only."""
        return {
            "features": list(model.features),
            "missing": [name for name in model.features if name in model.missing],
            "categories": {
                name: sorted(model.categories[name], key=str) for name in model.features if name in model.categories
            },
        }

    def is_split(self, model: Model) -> bool:
        """Whether there are strings among its columns."""
        return is_split(model)

    def count(self, rows: Rows) -> int:
        """Number of rows."""
        return count_rows(rows)

    def cost(self, rows: Rows) -> float:
        """Estimated from the number of values: NumPy checks those of an array, Python others one by one."""
        if isinstance(rows, np.ndarray):
            return rows.size * ARRAY_VALUE
        if isinstance(rows, Mapping):
            return sum(array.size for array in rows.values()) * CELL
        return (len(rows) + sum(len(row) for row in rows if isinstance(row, list | dict))) * CELL

    def preprocess(self, rows: Rows, model: Model) -> dict[str, Array]:
        """Bring rows to the model's inputs, see `columns.to_inputs`."""
        return to_inputs(rows, model)

    def postprocess(self, outputs: Sequence[Mapping[str, Array]], model: Model) -> Table:
        """Probabilities or values from the model's first output."""
        return Table(np.concatenate([_read(run, model) for run in outputs]))


def _read(outputs: Mapping[str, Array], model: Model) -> NDArray[np.float32]:
    output = outputs[model.outputs[0].name].astype(np.float32, copy=False)
    columns = model.classes or 1
    if output.ndim != 2 or output.shape[1] != columns:
        raise PredictorError(f"{model.name}: got output {output.shape}, expected (rows, {columns})")
    return output


TABULAR = register(Tabular())
