"""Client of Triton for the synchroniser: lists, loads and unloads models, and infers with candidates.

It uses gRPC: a load over HTTP occupies one of the server's connection threads for as long as it takes.
"""

import math
import re
import threading
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as client
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from predictor.synchroniser.errors import IncompleteConfig, ModelProcessDied, TritonDied, TritonError, TritonTimeout
from predictor.triton_conventions import ACCESS_HEADER, CANDIDATE_PREFIX, INCOMPLETE_CONFIG
from registry.errors import VersionRejected
from registry.golden import Arrays

_TIMEOUT_S = 5.0
_CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    # Limit of a response with all outputs: a model may return outputs of any size.
    ("grpc.max_receive_message_length", 2**26),
    # Of an error's text: it has the tensors that a config lacks.
    ("grpc.max_metadata_size", 2**20),
    ("grpc.absolute_max_metadata_size", 2**20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
]
_MAX_TEXT_BYTES = 4 * 2**20  # of a BYTES tensor: each of its elements becomes an object
_LATE = "StatusCode.DEADLINE_EXCEEDED"
# NOT_FOUND: the model was loaded a moment ago, so Triton has restarted.
_UNAVAILABLE = {
    "StatusCode.NOT_FOUND",
    "StatusCode.UNAVAILABLE",
    "StatusCode.DEADLINE_EXCEEDED",
    "StatusCode.CANCELLED",
}
# Messages of Triton, ONNX Runtime, CUDA and the kernel when memory, disk or descriptors are exhausted.
_EXHAUSTED = re.compile(
    r"out of memory|failed to allocate|cannot allocate|bad_?alloc|no space left|shared memory|too many open files|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)
# Triton writes the reason to its log only; `registry.triton` rejects the known causes earlier.
_NOT_POLLED, _SEE_LOG = "failed to poll from model repository", ": the reason is in Triton's log, at 'Poll failed'"
# A model's name cannot contain a blank.
_PROCESS_DIED = re.compile("stub process", re.IGNORECASE)
_IN_MIRROR = re.compile(rf"(?<![\w.])/[^'\"]*?/(?:models/|trial/(?={CANDIDATE_PREFIX}))")


class Requests(NamedTuple):
    """How many requests of a model have succeeded, and how many failed."""

    succeeded: int
    failed: int


class TritonClient:
    """A Triton with explicit model control.

    Attributes:
        url: `host:port`.
        up: set while Triton responds to `index`.
    """

    def __init__(self, url: str, *, secret: str, load_timeout_s: float) -> None:
        """Create a channel, which connects and reconnects by itself.

        Args:
            url: `host:port` of Triton's gRPC.
            secret: of restricted protocols; empty: they are unrestricted.
            load_timeout_s: of a load.
        """
        self.url = url
        self.up = threading.Event()
        self._load_timeout_s = load_timeout_s
        self._client = client.InferenceServerClient(url, channel_args=_CHANNEL_ARGS)
        self._headers = {f"triton-grpc-protocol-{ACCESS_HEADER}": secret} if secret else None

    def index(self) -> dict[str, dict[str, str]]:
        """Return the state of each version that Triton knows, by model and version.

        Raises:
            TritonError: Triton does not respond.
        """
        try:
            response = self._client.get_model_repository_index(headers=self._headers, client_timeout=_TIMEOUT_S)
        except InferenceServerException as exc:
            self.up.clear()
            raise TritonError(f"Triton at {self.url}: {exc.message()}") from exc
        self.up.set()
        models: dict[str, dict[str, str]] = {}
        for entry in response.models:
            models.setdefault(entry.name, {})[entry.version] = entry.state
        return models

    def wait_until_up(self, stopped: threading.Event) -> None:
        """Wait until Triton responds.

        Raises:
            TritonError: this process is being stopped.
        """
        while not self.up.wait(1.0):
            if stopped.is_set():
                raise TritonError("stopped")

    def count_requests(self) -> dict[str, Requests]:
        """Return the number of requests by model, since its load.

        Raises:
            TritonError: Triton does not respond.
        """
        try:
            response = self._client.get_inference_statistics(headers=self._headers, client_timeout=_TIMEOUT_S)
        except InferenceServerException as exc:
            raise TritonError(f"Triton at {self.url}: {exc.message()}") from exc
        counts: dict[str, Requests] = {}
        for entry in response.model_stats:
            before, stats = counts.get(entry.name, Requests(0, 0)), entry.inference_stats
            counts[entry.name] = Requests(before.succeeded + stats.success.count, before.failed + stats.fail.count)
        return counts

    def load(self, model: str) -> None:
        """Load the model's folder; the versions that serve do so until the new ones are ready.

        Does nothing where the folder is loaded already.

        Raises:
            IncompleteConfig: its config lacks tensors, which a Triton that completes configs would add.
            VersionRejected: Triton rejects it.
            TritonTimeout: it was not loaded in time.
            TritonError: Triton became unavailable, or is out of memory.
        """
        try:
            self._client.load_model(model, headers=self._headers, client_timeout=self._load_timeout_s)
        except InferenceServerException as exc:
            if exc.status() == _LATE:
                raise TritonTimeout(f"Triton: not loaded within {self._load_timeout_s:g} s") from exc
            raise _translate(exc) from exc

    def unload(self, model: str, *, limit_s: float = math.inf) -> None:
        """Unload a model once its accepted requests are finished; does nothing for an unknown model.

        Args:
            model: its name.
            limit_s: how long to wait, up to the timeout of a load.

        Raises:
            TritonError: Triton became unavailable, or did not finish in time.
        """
        limit_s = min(limit_s, self._load_timeout_s)
        try:
            self._client.unload_model(model, headers=self._headers, client_timeout=limit_s)
        except InferenceServerException as exc:
            error = _translate(exc)
            if isinstance(error, TritonError):
                raise error from exc

    def config(self, model: str) -> Any:
        """Return the `ModelConfig`, completed by Triton.

        Raises:
            VersionRejected, TritonError: as in `load`.
        """
        try:
            return self._client.get_model_config(model, client_timeout=_TIMEOUT_S).config
        except InferenceServerException as exc:
            raise _translate(exc) from exc

    def infer(
        self,
        model: str,
        arrays: Arrays,
        version: str = "",
        *,
        queue_s: float | None = None,
        limit_s: float = math.inf,
    ) -> dict[str, NDArray[Any]]:
        """Infer, and return all outputs by name.

        Args:
            model: its name.
            arrays: all inputs by name, each with its batch dimension.
            version: its number; "" for the newest.
            queue_s: timeout in Triton's queue, where the model's config allows one in a request.
            limit_s: timeout of the response, up to that of a load.

        Raises:
            VersionRejected, TritonError: as in `load`.
        """
        limit_s = min(limit_s, self._load_timeout_s)
        timeout_us = None if queue_s is None else int(queue_s * 1_000_000)
        inputs = [_to_input(name, array) for name, array in arrays.items()]
        try:
            result = self._client.infer(model, inputs, version, timeout=timeout_us, client_timeout=limit_s)
        except InferenceServerException as exc:
            if exc.status() == _LATE and "Deadline Exceeded" in (exc.message() or ""):
                raise TritonTimeout(f"Triton: no response within {limit_s:.0f} s") from exc
            raise _translate(exc) from exc
        return _read_outputs(result)


def _to_input(name: str, array: NDArray[Any]) -> client.InferInput:
    tensor = client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


def _read_outputs(result: client.InferResult) -> dict[str, NDArray[Any]]:
    """Return the outputs by name.

    Raises:
        VersionRejected: one of strings is longer than `_MAX_TEXT_BYTES`.
    """
    response = result.get_response()
    for output, content in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.datatype == "BYTES" and len(content) > _MAX_TEXT_BYTES:
            raise VersionRejected(
                f"output {output.name!r}: got {len(content)} bytes, expected at most {_MAX_TEXT_BYTES}"
            )
    return {output.name: result.as_numpy(output.name) for output in response.outputs}


def _translate(exc: InferenceServerException) -> VersionRejected | TritonError:
    text = exc.message() or ""
    if _EXHAUSTED.search(text):
        return TritonError(f"Triton: {_shorten(text)}")
    if _PROCESS_DIED.search(text):
        return ModelProcessDied(f"Triton: {_shorten(text)}")
    if exc.status() in _UNAVAILABLE:
        return TritonDied(f"Triton: {_shorten(text)}")
    if fields := text.partition(INCOMPLETE_CONFIG)[2]:
        return IncompleteConfig(_shorten(text), fields)
    return VersionRejected(_shorten(text) + _SEE_LOG * text.endswith(_NOT_POLLED))


def _shorten(text: str) -> str:
    """Return Triton's message on one line, without traceback, paths of the mirror and the candidate prefix."""
    line = " ".join(re.sub(r"\n*At:.*?(?=;|$)", "", text, flags=re.DOTALL).split())
    return _IN_MIRROR.sub("", line).replace(CANDIDATE_PREFIX, "")[:500]
