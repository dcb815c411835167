"""Parts of an estimator that skl2onnx converts: in FP64 where ONNX Runtime loads that, else in FP32."""

import warnings
from typing import Any

from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.base import is_classifier

from export.errors import ExportError, first_line
from export.proof.session import Session
from export.tables.nodes import OPSETS, Nodes

_TYPES = {"FP64": DoubleTensorType, "FP32": FloatTensorType}


def convert_part(nodes: Nodes, estimator: Any, tensor: str, *, width: int) -> tuple[list[str], int]:
    """Outputs of an estimator for a tensor `(batch, width)` of the graph's numbers, and the width of the last.

    Raises:
        ExportError: skl2onnx does not convert it.
    """
    error: ExportError | None = None
    for number in ("FP64", "FP32"):
        try:
            model = convert(estimator, number=number, width=width)
            Session(model, name=type(estimator).__name__)
        except ExportError as exc:
            error = error or exc
            continue
        outputs = nodes.merge(model, nodes.cast(tensor, number))
        last = model.graph.output[-1].type.tensor_type
        # Later nodes take the graph's own numbers.
        outputs[-1] = nodes.cast(outputs[-1], nodes.number)
        return outputs[-1:], last.shape.dim[-1].dim_value
    assert error is not None  # noqa: S101 - the loop ends by return, or with one
    raise error


def convert(estimator: Any, *, number: str, width: int) -> ModelProto:
    """ONNX graph `features` `(batch, width)` -> outputs of the estimator, its probabilities or values last.

    Raises:
        ExportError: skl2onnx has no converter for a part of it.
    """
    kind = type(estimator).__name__
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with warnings.catch_warnings():
            # skl2onnx 1.20 reads attributes that scikit-learn 1.9 deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            model: ModelProto = to_onnx(
                estimator,
                initial_types=[("features", _TYPES[number]([None, width]))],
                options=options,
                target_opset=OPSETS,
            )
    except Exception as exc:  # it runs the estimator's own code and hundreds of converters, which raise anything
        reason = first_line(exc)
        if "shape calculator" in reason or "converter" in reason:  # its message for a class without a converter
            reason = f"it has no converter for {kind} or a part of it"
        raise ExportError(f"{kind}: skl2onnx does not convert it: {reason}") from exc
    return model
