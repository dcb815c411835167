"""The `openvino` backend of the embedded Triton: what its Python backend loads for `backend: "openvino"`.

In the cluster the same repository is served by the C++ backend of NVIDIA's image, so this one decides as that does
(triton-inference-server/openvino_backend). Triton starts one process for each instance of a model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from predictor.backends.artifact import as_stored, find_artifact
from predictor.backends.batch import join, split
from predictor.backends.errors import ModelRejectedError
from predictor.backends.openvino.options import compose_properties, is_set, read_device
from predictor.backends.openvino.tensors import complete_config, configure
from predictor.backends.signature import reject_unsupported
from predictor.backends.stall_watchdog import Guard


class TritonPythonModel:
    """One instance of one version of a model. The name and the methods are Triton's."""

    @staticmethod
    def auto_complete_config(model_config: Any) -> Any:
        """Complete a config that leaves out inputs or outputs; touch no other.

        Args:
            model_config: `triton.ModelConfig`. Its dictionary is changed in place.
        """
        config = model_config.as_dict()
        if not (config["input"] and config["output"]):
            reject_unsupported(config)
            complete_config(config, _read_model(config, Path(triton.get_model_dir())))
        return model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and check it against its config.

        Args:
            args: Of Triton: `model_config` is JSON.

        Raises:
            ModelRejectedError: the C++ backend would refuse it too.
            Exception: one of OpenVINO's, with its text.
        """
        config = json.loads(args["model_config"])
        reject_unsupported(config)
        properties = compose_properties(config)
        model = _read_model(config, Path(triton.get_model_dir()))
        model = configure(model, config, reshapes=is_set(config, "RESHAPE_IO_LAYERS"))
        self._batch_size = int(config["max_batch_size"])
        self._pads = is_set(config, "ENABLE_BATCH_PADDING")
        self._request = _compile(model, read_device(config), properties).create_infer_request()
        self._outputs = [io["name"] for io in config["output"]]
        self._guard = Guard()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests that Triton put together, in their order.

        An exception, OpenVINO's or ours, fails each of them with its text: Triton sees to that.
        """
        with self._guard.answering():
            if self._batch_size:
                return self._run(requests)
            return [self._run([request])[0] for request in requests]

    def _run(self, requests: Sequence[Any]) -> list[Any]:
        feeds = {
            tensor.name(): join([triton.get_input_tensor_by_name(r, tensor.name()).as_numpy() for r in requests])
            for tensor in requests[0].inputs()
        }
        sizes = [len(request.inputs()[0].as_numpy()) for request in requests] if self._batch_size else [1]
        rows = sum(sizes)
        if self._batch_size and rows != self._batch_size:
            if not self._pads:
                return [_refuse(self._explain_batch(size)) for size in sizes]
            feeds = {name: _pad(array, self._batch_size - rows) for name, array in feeds.items()}
        for name, array in feeds.items():
            try:
                # The very memory of the request: it lives until the response is made.
                self._request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(array), shared_memory=True))
            except RuntimeError as exc:  # of a dimension that the config leaves free and the graph does not
                reason = str(exc).strip().rpartition("\n")[2]  # before it: places in OpenVINO's sources
                return [_refuse(f"input {name!r}: {reason}") for _ in requests]
        self._request.infer()
        outputs: dict[str, NDArray[Any]] = {name: self._request.get_tensor(name).data for name in self._outputs}
        if self._batch_size:
            parts = {name: split(array[:rows], sizes) for name, array in outputs.items()}
        else:
            parts = {name: [array] for name, array in outputs.items()}
        return [
            triton.InferenceResponse(
                [triton.Tensor(name, parts[name][i]) for name in parts if name in request.requested_output_names()]
            )
            for i, request in enumerate(requests)
        ]

    def _explain_batch(self, size: int) -> str:
        return (
            f"expected a batch of {self._batch_size}, got {size}: the openvino backend runs max_batch_size only; "
            "set max_batch_size 1, or the parameter ENABLE_BATCH_PADDING to YES"
        )


def _refuse(reason: str) -> Any:
    """The response to a request that does not fit the model: an exception would be Triton's own failure to clients."""
    return triton.InferenceResponse(error=triton.TritonError(reason, triton.TritonError.INVALID_ARG))


def _pad(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((rows, *array.shape[1:]), array.dtype)])


def _read_model(config: Mapping[str, Any], version_dir: Path) -> Any:
    filename = config["default_model_filename"] or "model.xml"
    path = find_artifact(version_dir, filename)
    try:
        return openvino.Core().read_model(as_stored(path))
    except RuntimeError as exc:
        raise ModelRejectedError(f"'{path}' cannot be read: {exc}") from exc


def _compile(model: Any, device: str, properties: Mapping[str, Any]) -> Any:
    core = openvino.Core()
    # One process would pin the threads of its streams to cores of their own; ours would all take the same ones.
    core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    try:
        if device != "CPU":
            core.set_property(device, dict(properties))
            return core.compile_model(model, device)
        return core.compile_model(model, device, properties)
    except RuntimeError as exc:
        if device == "CPU":
            raise
        raise ModelRejectedError(
            f"TARGET_DEVICE: got {device}, here are {', '.join(core.available_devices)}: {' '.join(str(exc).split())}"
        ) from exc
