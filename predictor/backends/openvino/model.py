"""The `openvino` backend of the embedded Triton: what its Python backend loads for `backend: "openvino"`.

In the cluster the C++ backend of NVIDIA's image (triton-inference-server/openvino_backend) serves the same repository,
so this one makes the same decisions. Triton starts one process for each instance of a model.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from predictor.backends.artifact import as_stored, find_artifact
from predictor.backends.batch import join, split
from predictor.backends.errors import ModelRejectedError
from predictor.backends.openvino.neighbours import Neighbours
from predictor.backends.openvino.options import compose_forms, is_set, read_device
from predictor.backends.openvino.tensors import complete_config, configure
from predictor.backends.signature import find_missing, reject_completed, reject_unsupported
from predictor.backends.stall_watchdog import Watchdog


class TritonPythonModel:
    """One instance of one version of a model. The name and the methods are Triton's."""

    @staticmethod
    def auto_complete_config(model_config: Any) -> Any:
        """Complete a config without inputs or outputs; leave any other unchanged.

        Args:
            model_config: `triton.ModelConfig`. Its dictionary is changed in place.
        """
        config = model_config.as_dict()
        if find_missing(config):
            reject_unsupported(config)
            complete_config(config, _read_model(config, Path(triton.get_model_dir())))
        return model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and compare it with its config.

        Args:
            args: By Triton; `model_config` is JSON.

        Raises:
            ModelRejectedError: the C++ backend would reject it too; or the config is incomplete.
            Exception: by OpenVINO, with its message.
        """
        config = json.loads(args["model_config"])
        reject_unsupported(config)
        self._forms = compose_forms(config)
        model = _read_model(config, Path(triton.get_model_dir()))
        if missing := find_missing(config):
            complete_config(config, model)
        self._takes_any_batch = is_set(config, "ANY_BATCH")
        reshapes = is_set(config, "RESHAPE_IO_LAYERS")
        model = configure(model, config, reshapes=reshapes, any_batch=self._takes_any_batch)
        reject_completed(config, missing)
        self._batch_size = int(config["max_batch_size"])
        self._pads = is_set(config, "ENABLE_BATCH_PADDING")
        device = read_device(config)
        self._request = _compile(model, device, self._forms.shared).create_infer_request()
        self._alone = self._neighbours = None
        if self._forms.alone is not None:
            self._alone = _compile(model, device, self._forms.alone).create_infer_request()
            self._neighbours = Neighbours(Path(triton.get_model_dir()), args["model_instance_name"])
        self._outputs = [io["name"] for io in config["output"]]
        self._watchdog = Watchdog()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Infer for the requests of a batch, and return their responses in order.

        An exception, by OpenVINO or this backend, fails all of them: Triton returns its message.
        """
        with self._watchdog.responding(), self._choosing() as compiled:
            if self._batch_size:
                return self._run(compiled, requests)
            return [self._run(compiled, [request])[0] for request in requests]

    def finalize(self) -> None:
        """Free what the instances share: the model is unloaded."""
        if self._neighbours is not None:
            self._neighbours.leave()

    @contextmanager
    def _choosing(self) -> Iterator[Any]:
        """Yield the compiled form that runs the next requests, by how many instances are busy."""
        if self._neighbours is None:
            yield self._request
            return
        with self._neighbours.busy() as busy:
            yield self._alone if self._forms.is_alone(busy) else self._request

    def _run(self, compiled: Any, requests: Sequence[Any]) -> list[Any]:
        feeds = {
            tensor.name(): join([triton.get_input_tensor_by_name(r, tensor.name()).as_numpy() for r in requests])
            for tensor in requests[0].inputs()
        }
        sizes = [len(request.inputs()[0].as_numpy()) for request in requests] if self._batch_size else [1]
        rows = sum(sizes)
        if self._batch_size and not self._takes_any_batch and rows != self._batch_size:
            if not self._pads:
                return [_reject(self._explain_batch(size)) for size in sizes]
            feeds = {name: _pad(array, self._batch_size - rows) for name, array in feeds.items()}
        for name, array in feeds.items():
            try:
                # The memory of the request itself: it lives until the response is made.
                compiled.set_tensor(name, openvino.Tensor(np.ascontiguousarray(array), shared_memory=True))
            except RuntimeError as exc:  # a dimension that is variable in the config and fixed in the graph
                reason = str(exc).strip().rpartition("\n")[2]  # after source locations of OpenVINO
                return [_reject(f"input {name!r}: {reason}") for _ in requests]
        compiled.infer()
        outputs: dict[str, NDArray[Any]] = {name: compiled.get_tensor(name).data for name in self._outputs}
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


def _reject(reason: str) -> Any:
    """Return an error response for a request that does not fit the model: an exception would be a server error."""
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
    # A single process would pin its streams to different cores; several processes would all pin to the same ones.
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
            f"TARGET_DEVICE: got {device}, expected one of {', '.join(core.available_devices)}: "
            f"{' '.join(str(exc).split())}"
        ) from exc
