"""The `onnxruntime` backend of the embedded Triton: what its Python backend loads for `backend: "onnxruntime"`.

In the cluster NVIDIA's C++ backend serves the same repository, so this one makes the same decisions. Triton starts
one process for each instance of a model; each holds one session, and a second for batches (streams.py).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from predictor.backends.artifact import as_stored, check_versions, find_artifact
from predictor.backends.batch import join, split, terminate_strings
from predictor.backends.errors import ModelRejectedError
from predictor.backends.onnxruntime.options import (
    compose_run_options,
    compose_session_options,
    read_threads,
    select_providers,
)
from predictor.backends.onnxruntime.streams import Streams, share_threads
from predictor.backends.signature import (
    check_inputs,
    check_outputs,
    complete_config,
    find_missing,
    read_dims,
    read_tensors,
    reject_completed,
    reject_unsupported,
)
from predictor.backends.stall_watchdog import Watchdog


class TritonPythonModel:
    """One instance of one version of a model. The name and the methods are Triton's."""

    @staticmethod
    def auto_complete_config(model_config: Any) -> Any:
        """Complete a config without inputs or outputs; leave any other unchanged.

        Args:
            model_config: `triton.ModelConfig`. Its dictionary is changed in place, because its `add_input` does not
                support `reshape`, which a tensor of the batch dimension alone needs.
        """
        config = model_config.as_dict()
        if find_missing(config):
            reject_unsupported(config)
            session = _create_session(config, Path(triton.get_model_dir()))
            complete_config(config, read_tensors(session.get_inputs()), read_tensors(session.get_outputs()))
        return model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and compare it with its config.

        Args:
            args: By Triton; `model_config` is JSON.

        Raises:
            ModelRejectedError: the C++ backend would reject it too; or the config is incomplete.
            Exception: by ONNX Runtime, with its message.
        """
        config = json.loads(args["model_config"])
        reject_unsupported(config)
        self._session = _create_session(config, Path(triton.get_model_dir()))
        self._run_options = compose_run_options(config)
        overridable = read_tensors(self._session.get_overridable_initializers())
        self._inputs, outputs = read_tensors(self._session.get_inputs()), read_tensors(self._session.get_outputs())
        if missing := find_missing(config):
            complete_config(config, self._inputs, outputs)
        check_inputs(config, self._inputs, overridable=overridable)
        self._inputs |= overridable
        check_outputs(config, outputs)
        reject_completed(config, missing)
        self._output_dims = {io["name"]: read_dims(io) for io in config["output"]}
        self._batches = config["max_batch_size"] > 0
        self._streams = _compose_streams(config, Path(triton.get_model_dir()))
        self._watchdog = Watchdog()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Infer for the requests of a batch, and return their responses in order.

        An exception, by ONNX Runtime or this backend, fails all of them: Triton returns its message.
        """
        with self._watchdog.responding():
            if not self._batches:
                return [self._run(self._session, [request])[0] for request in requests]
            if self._streams is None:
                return self._run(self._session, requests)
            if (session := self._streams.find_session(len(requests))) is not None:
                return self._streams.map(lambda request: self._run(session, [request])[0], requests)
            began = time.perf_counter()
            responses = self._run(self._session, requests)
            self._streams.observe(time.perf_counter() - began, len(requests))
            return responses

    def _run(self, session: onnxruntime.InferenceSession, requests: Sequence[Any]) -> list[Any]:
        feeds = self._read_feeds(requests)
        wanted = [name for name in self._output_dims if any(name in r.requested_output_names() for r in requests)]
        outputs = dict(zip(wanted, session.run(wanted, feeds, self._run_options), strict=True))
        if not self._batches:
            # A scalar gets the dims of the config, which are all 1.
            rows = {
                name: [out.reshape(self._output_dims[name]) if out.ndim == 0 else out] for name, out in outputs.items()
            }
        else:
            sizes = [len(request.inputs()[0].as_numpy()) for request in requests]
            rows = {name: split(out, sizes) for name, out in outputs.items()}
        return [
            triton.InferenceResponse(
                [triton.Tensor(name, rows[name][i]) for name in wanted if name in request.requested_output_names()]
            )
            for i, request in enumerate(requests)
        ]

    def _read_feeds(self, requests: Sequence[Any]) -> dict[str, NDArray[Any]]:
        return {
            tensor.name(): join([self._read_input(request, tensor.name()) for request in requests])
            for tensor in requests[0].inputs()
        }

    def _read_input(self, request: Any, name: str) -> NDArray[Any]:
        array: NDArray[Any] = triton.get_input_tensor_by_name(request, name).as_numpy()
        if array.dtype == np.object_:
            array = terminate_strings(array)
        return array if self._inputs[name].shape else array.reshape(())


def _compose_streams(config: dict[str, Any], version_dir: Path) -> Streams | None:
    threads = read_threads(config)
    path = as_stored(find_artifact(version_dir, config["default_model_filename"]))
    share = share_threads(config, path, threads=threads)
    if not share:
        return None
    loaded = _identify(path)

    def create() -> onnxruntime.InferenceSession:
        session = _create_session(config, version_dir, threads=share)
        if _identify(path) != loaded:
            raise ModelRejectedError(f"'{path}' is not the file that was loaded")
        return session

    return Streams(create, count=threads // share)


def _identify(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _create_session(
    config: dict[str, Any], version_dir: Path, *, threads: int | None = None
) -> onnxruntime.InferenceSession:
    path = find_artifact(version_dir, config["default_model_filename"])
    options = compose_session_options(config)
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=select_providers(config))
    check_versions(path)
    return session
