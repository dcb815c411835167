"""int8: quantises the convolutions of a detector, in QDQ form, by ONNX Runtime's own tool.

NNCF, OpenVINO's tool, needs more and heavier packages, and OpenVINO alone reads its result; QDQ is standard ONNX, which
TensorRT and ONNX Runtime read as well.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from export.graph.dfl import split

# Convolutions, and operators that a quantised tensor passes unchanged: it stays int8 between two convolutions.
_OPERATORS = ["Conv", "Concat", "Add", "MaxPool", "Resize", "Split", "Slice"]

_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


def quantise(model: onnx.ModelProto, inputs: Iterable[NDArray[Any]]) -> onnx.ModelProto:
    """Quantise all up to the last convolutions, which stay as they are: their outputs are the boxes and scores.

    Activations are symmetric, since zero points cost OpenVINO more than int8 saves, weights by channel. The output of a
    convolution is not quantised before its activation function, so that the two stay one operation.

    The result is correct on every CPU: unsigned activations, because OpenVINO (2026.4) rounds signed ones to whole
    numbers before a Concat where the CPU has no AMX; weights of 7 bits, because the sum of two products with 8 bits
    overflows where it has no VNNI.

    Args:
        model: a detector.
        inputs: samples of its input, with batch dimension.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - a second that others need not wait for
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    named = _name_nodes(onnx.shape_inference.infer_shapes(model))
    _, last, decoding = split(named.graph)

    with tempfile.TemporaryDirectory(prefix="nereid-") as folder, _quiet():
        target = Path(folder) / "model.onnx"
        quantize_static(
            named,
            target,
            _reader(named.graph.input[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=[node.name for node in (*last, *decoding)],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=_OPTIONS,
        )
        quantised = onnx.load(target)
    del quantised.graph.value_info[:]
    return quantised


def _name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node a name, in place: the tool excludes nodes by their names."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node/{index}"
    return model


def _reader(name: str, inputs: Iterable[NDArray[Any]]) -> Any:
    """The inputs, one after the other, as the tool reads them."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - as above

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Iterates over the inputs."""

        def __init__(self) -> None:
            self._inputs: Iterator[NDArray[Any]] = iter(inputs)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._inputs, None)
            return None if batch is None else {name: batch}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tool's advice to rewrite the graph first: an exported graph already is."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
