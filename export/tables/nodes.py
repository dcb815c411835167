"""Builds an ONNX graph node by node, and tracks the columns of a table through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

OPSETS = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION = 8  # that of these opsets
_ELEMENTS: Mapping[str, int] = {"FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING}


@dataclass(frozen=True)
class Column:
    """A column of a tensor `(batch, width)`.

    Attributes:
        tensor: that holds it.
        index: its position there.
        text: whether it holds strings; numbers are FP64, or FP32 where the graph takes FP32.
        origin: the column of the client's rows whose values it holds (missing ones may be filled), or None.
    """

    tensor: str
    index: int
    text: bool = False
    origin: int | None = None


Frame = Sequence[Column]


@dataclass
class Nodes:
    """A graph that grows.

    Attributes:
        number: type of numbers, `FP32` or `FP64`.
        only: the only values that a column of the client's rows may hold, where others are an error of the estimator.
        notes: warnings for the user.
    """

    number: str = "FP64"
    only: dict[int, list[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _nodes: list[NodeProto] = field(default_factory=list)
    _initializers: list[TensorProto] = field(default_factory=list)
    _widths: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    @property
    def dtype(self) -> Any:
        """NumPy's type of numbers."""
        return np.float64 if self.number == "FP64" else np.float32

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Name of a constant; numbers become those of the graph where no type is given."""
        array = np.asarray(value, dtype or self.dtype)
        name = self._name("constant")
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Name of the only output of a new node."""
        name = self._name(operator.lower())
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def cast(self, tensor: str, datatype: str) -> str:
        """A tensor in another type of numbers."""
        return self.add("Cast", tensor, to=_ELEMENTS[datatype])

    def cast_bool(self, tensor: str) -> str:
        """Whether each number is not 0."""
        return self.add("Cast", tensor, to=TensorProto.BOOL)

    def both(self, probability: str) -> str:
        """Probabilities of two classes, `(batch, 2)`, from that of the second."""
        return self.add("Concat", self.add("Sub", self.constant(1), probability), probability, axis=1)

    def add_lookup(self, tensor: str, codes: Mapping[str, int], *, default: int) -> str:
        """INT64 codes of strings."""
        return self.add(
            "LabelEncoder",
            tensor,
            domain="ai.onnx.ml",
            keys_strings=list(codes),
            values_int64s=list(codes.values()),
            default_int64=default,
        )

    def merge(self, model: ModelProto, tensor: str) -> list[str]:
        """Include a graph of one input, and return the names of its outputs."""
        prefixed = compose.add_prefix(model, f"{self._name('part')}/").graph
        source = prefixed.input[0].name
        for node in prefixed.node:
            node.input[:] = [tensor if name == source else name for name in node.input]
        self._nodes.extend(prefixed.node)
        self._initializers.extend(prefixed.initializer)
        return [output.name for output in prefixed.output]

    def frame(self, tensor: str, width: int, *, text: bool = False, first: int | None = None) -> list[Column]:
        """The columns of a tensor; with `first`, they are those of the client's rows from there on."""
        self._widths[tensor] = width
        return [
            Column(tensor, index, text=text, origin=None if first is None else first + index) for index in range(width)
        ]

    def join(self, frame: Frame) -> str:
        """One tensor `(batch, columns)` of columns of one kind."""
        parts: list[tuple[str, list[int]]] = []
        for column in frame:
            if not parts or parts[-1][0] != column.tensor:
                parts.append((column.tensor, []))
            parts[-1][1].append(column.index)
        tensors = [self._take(tensor, indices) for tensor, indices in parts]
        return tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, axis=1)

    def moved(self, frame: Frame, tensor: str) -> list[Column]:
        """Columns in their order, in a new tensor that holds their values only."""
        self._widths[tensor] = len(frame)
        return [replace(column, tensor=tensor, index=index) for index, column in enumerate(frame)]

    def model(self, inputs: Mapping[str, tuple[str, int]], output: tuple[str, str, int]) -> ModelProto:
        """The finished graph.

        Args:
            inputs: datatype and width of each input of the graph, by name.
            output: internal name, name as an output and width of the result, which is cast to FP32.
        """
        made, name, width = output
        # Names of inputs and outputs are the user's: a prefix keeps internal names apart from them.
        nodes = [
            *(helper.make_node("Identity", [given], [inner(given)]) for given in inputs),
            *self._nodes,
            helper.make_node("Cast", [made], [f"{_PREFIX}flat"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{_PREFIX}flat", self.constant([-1, width], np.int64)], [name]),
        ]
        graph = helper.make_graph(
            nodes,
            "table",
            [helper.make_tensor_value_info(n, _ELEMENTS[kind], ["batch", k]) for n, (kind, k) in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])],
            self._initializers,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _take(self, tensor: str, indices: list[int]) -> str:
        if indices == list(range(self._widths[tensor])):
            return tensor
        return self.add("Gather", tensor, self.constant(indices, np.int64), axis=1)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{_PREFIX}{what}{self._count}"


_PREFIX = "table/"


def inner(given: str) -> str:
    """Internal name of an input."""
    return f"{_PREFIX}in/{given}"


def as_rows(values: Any) -> NDArray[Any]:
    """A constant for each column, as one row."""
    return np.asarray(values).reshape(1, -1)
