"""ONNX Runtime and OpenVINO, as export runs models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from export.errors import ExportError

# Its exceptions share no class but Exception.
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
        shapes: of its outputs by name, with the batch dimension; -1 where a dim is free.
    """

    def __init__(self, model: onnx.ModelProto | Path, *, name: str) -> None:
        """Load a model; `name` stands for it in messages.

        Raises:
            ExportError: ONNX Runtime refuses it.
        """
        self._name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4  # what matters comes as an exception
        content = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _ERRORS as exc:
            raise ExportError(f"{name}: ONNX Runtime does not load it: {exc}") from exc
        self.input: str = self._session.get_inputs()[0].name
        self.shapes: Mapping[str, tuple[int, ...]] = {
            output.name: tuple(dim if isinstance(dim, int) else -1 for dim in output.shape)
            for output in self._session.get_outputs()
        }

    def infer(self, batch: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, with their batch dimension.

        Args:
            batch: of its first input, or of each by name; strings are objects.

        Raises:
            ExportError: the run failed.
        """
        feeds = {self.input: batch} if isinstance(batch, np.ndarray) else dict(batch)
        try:
            outputs = self._session.run(None, feeds)
        except _ERRORS as exc:
            shapes = ", ".join(str(array.shape) for array in feeds.values())
            raise ExportError(f"{self._name}: ONNX Runtime failed on an input of {shapes}: {exc}") from exc
        return dict(zip((output.name for output in self._session.get_outputs()), outputs, strict=True))


class LowPrecisionSession:
    """A model in OpenVINO, as the profiles `fast` and `int8` run it: bf16 where the CPU has it, else FP32."""

    def __init__(self, model: onnx.ModelProto, *, name: str) -> None:
        """Load a model; `name` stands for it in messages.

        Raises:
            ExportError: OpenVINO is not installed, or refuses the model.
        """
        try:
            import openvino  # noqa: PLC0415 - only where a precision is measured
        except ImportError as exc:
            raise ExportError(f"{name}: bf16 and int8 are proven in OpenVINO, which is not installed") from exc

        core = openvino.Core()
        try:
            self._model = core.compile_model(
                core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
            )
        except RuntimeError as exc:
            raise ExportError(f"{name}: OpenVINO does not load it: {exc}") from exc

    def infer(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, with their batch dimension."""
        return {output.any_name: value for output, value in self._model(batch).items()}
