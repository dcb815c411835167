"""Runs models in ONNX Runtime and in OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import EncodeError
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from export.errors import ExportError, first_line
from predictor.backends.errors import ModelRejectedError
from predictor.backends.signature import Tensor, read_tensors

# The exceptions of ONNX Runtime share no class but Exception.
_ERRORS = (
    errors.EPFail,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
)


class Session:
    """A loaded model.

    Attributes:
        input: name of its first input.
        inputs, outputs: its tensors, as Triton's backend sees them.
    """

    def __init__(self, model: onnx.ModelProto | Path, *, name: str) -> None:
        """Load a model; `name` stands for it in messages.

        Raises:
            ExportError: ONNX Runtime rejects it.
        """
        self._name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4  # errors are raised as exceptions
        try:
            content = str(model) if isinstance(model, Path) else model.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.inputs, self.outputs = (
                read_tensors(nodes) for nodes in (self._session.get_inputs(), self._session.get_outputs())
            )
        except UnicodeDecodeError as exc:
            raise ExportError(f"{name}: a tensor's name is not UTF-8 ({exc})") from exc
        except ModelRejectedError as exc:
            raise ExportError(f"{name}: {exc}") from exc
        except (EncodeError, ValueError) as exc:
            raise ExportError(f"{name}: got more than 2 GB of weights ({first_line(exc)}), expected less") from exc
        except _ERRORS as exc:
            raise ExportError(f"{name}: ONNX Runtime does not load it: {first_line(exc)}") from exc
        self.input: str = self._session.get_inputs()[0].name
        self._is_half = self.inputs[self.input].datatype == "TYPE_FP16"

    def infer(self, batch: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, with their batch dimension; FP32 goes in as FP16 where the model takes that.

        Args:
            batch: of its first input, or of each by name; strings are objects.

        Raises:
            ExportError: the run failed.
        """
        feeds = {self.input: batch} if isinstance(batch, np.ndarray) else dict(batch)
        try:
            if self._is_half and isinstance(batch, np.ndarray):
                feeds = {self.input: batch.astype(np.float16)}
            outputs = self._session.run(None, feeds)
        except _ERRORS as exc:
            shapes = ", ".join(str(array.shape) for array in feeds.values())
            raise ExportError(f"{self._name}: ONNX Runtime failed on an input of {shapes}: {first_line(exc)}") from exc
        return dict(zip((output.name for output in self._session.get_outputs()), outputs, strict=True))


class LowPrecisionSession:
    """A model in OpenVINO, as the profiles `fast` and `int8` run it: bf16 where the CPU has it, else FP32.

    Attributes:
        inputs, outputs: its tensors, as Triton's backend sees them.
    """

    def __init__(self, model: onnx.ModelProto, *, name: str) -> None:
        """Load a model; `name` stands for it in messages.

        Raises:
            ExportError: OpenVINO is not installed, or rejects the model.
        """
        try:
            import openvino  # noqa: PLC0415 - only where a precision is measured
        except ImportError as exc:
            raise ExportError(f"{name}: bf16 and int8 are verified in OpenVINO, which is not installed") from exc

        self._name = name
        core = openvino.Core()
        try:
            read = core.read_model(model.SerializeToString())
            self.inputs, self.outputs = (
                {t.get_any_name(): _tensor(t) for t in ts} for ts in (read.inputs, read.outputs)
            )
            self._model = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        except RuntimeError as exc:
            raise ExportError(f"{name}: OpenVINO does not load it: {_last_line(exc)}") from exc

    def infer(self, batch: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, with their batch dimension.

        Args:
            batch: of its only input, or of each by name.

        Raises:
            ExportError: the run failed.
        """
        try:
            outputs = self._model(batch if isinstance(batch, np.ndarray) else dict(batch))
        except RuntimeError as exc:
            shapes = batch.shape if isinstance(batch, np.ndarray) else [array.shape for array in batch.values()]
            raise ExportError(f"{self._name}: OpenVINO failed on an input of {shapes}: {_last_line(exc)}") from exc
        # A tensor may have several names, of nodes that OpenVINO has merged.
        return {
            name: value.copy() for output, value in outputs.items() for name in output.names if name in self.outputs
        }


def _tensor(tensor: Any) -> Tensor:
    """A tensor of an `openvino.Model`, with Triton's datatype."""
    kind = tensor.get_element_type().get_type_name()
    datatype = {"f32": "TYPE_FP32", "f16": "TYPE_FP16", "u8": "TYPE_UINT8", "i32": "TYPE_INT32", "i64": "TYPE_INT64"}
    shape = (dim.get_length() if dim.is_static else -1 for dim in tensor.get_partial_shape())
    return Tensor(datatype.get(kind, kind), tuple(shape))


def _last_line(exc: Exception) -> str:
    """The last line of an error of OpenVINO says what is wrong; those before it say where."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[-1][:300]
