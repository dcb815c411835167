"""Triton, seen from the synchroniser: which models it has, loading, unloading, and asking a candidate.

Over gRPC: a load over HTTP occupies one of the server's connection threads for as long as it takes.
"""

import math
import re
from typing import Any

import numpy as np
import tritonclient.grpc as client
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from predictor.command import CANDIDATE, PROOF_NAME
from predictor.sync.errors import TritonError
from registry.errors import Refused
from registry.golden import Arrays

_QUICK_S = 5.0
_CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    # Of an answer, all outputs of a trial together: a model may make up any size.
    ("grpc.max_receive_message_length", 2**26),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]
# NOT_FOUND: it was loaded a moment ago, so Triton has been started anew.
_LARGEST_TEXTS = 4 * 2**20  # of a tensor of BYTES: each of its elements becomes an object
_LATE = "StatusCode.DEADLINE_EXCEEDED"
_AWAY = {"StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}
# What Triton, ONNX Runtime, CUDA and the kernel say when there is no room now.
_NO_ROOM = re.compile(
    r"out of memory|failed to allocate|cannot allocate|bad_?alloc|no space left|shared memory|too many open files|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)
# Triton writes the reason to its log alone; what is known of it is rejected before: `registry.judgement.triton_rules`.
_NOT_POLLED, _POLLED = "failed to poll from model repository", ": why is in Triton's log, at 'Poll failed'"
# No name of a model has a blank.
_ENDED = re.compile("stub process", re.IGNORECASE)
_IN_MIRROR = re.compile(rf"(?<![\w.])/[^'\"]*?/(?:models/|trial/(?={CANDIDATE}))")


class Died(TritonError):
    """Triton, or its process that ran the model, ended or did not answer: because of the model, or of somebody else."""


class ProcessDied(Died):
    """Triton's process that ran the model ended, or is not healthy; Triton itself lives."""


class TooSlow(TritonError):
    """A load, or an answer to a trial, that did not come in time: one may wait for it for ever."""


class Triton:
    """The server beside us."""

    def __init__(self, url: str, *, secret: str, load_timeout_s: float) -> None:
        """Prepare a channel to `host:port`; it connects, and reconnects, by itself."""
        self.url = url
        self._load_timeout_s = load_timeout_s
        self._client = client.InferenceServerClient(url, channel_args=_CHANNEL_ARGS)
        self._headers = {f"triton-grpc-protocol-{PROOF_NAME}": secret} if secret else None

    def index(self) -> dict[str, dict[str, str]]:
        """State of each version that Triton knows, by model and version.

        Raises:
            TritonError: it does not answer.
        """
        try:
            reply = self._client.get_model_repository_index(headers=self._headers, client_timeout=_QUICK_S)
        except InferenceServerException as exc:
            raise TritonError(f"Triton at {self.url}: {exc.message()}") from exc
        models: dict[str, dict[str, str]] = {}
        for entry in reply.models:
            models.setdefault(entry.name, {})[entry.version] = entry.state
        return models

    def failures(self) -> dict[str, int]:
        """How many requests to each model have failed while it ran.

        Raises:
            TritonError: it does not answer.
        """
        try:
            reply = self._client.get_inference_statistics(headers=self._headers, client_timeout=_QUICK_S)
        except InferenceServerException as exc:
            raise TritonError(f"Triton at {self.url}: {exc.message()}") from exc
        counts: dict[str, int] = {}
        for entry in reply.model_stats:
            counts[entry.name] = counts.get(entry.name, 0) + entry.inference_stats.fail.count
        return counts

    def load(self, model: str) -> None:
        """Load what the model's folder holds; what serves goes on serving until the new one does.

        Does nothing where Triton has it already.

        Raises:
            Refused: Triton does not take it.
            TooSlow: it was not loaded in time.
            TritonError: Triton went away, or has no room now.
        """
        try:
            self._client.load_model(model, headers=self._headers, client_timeout=self._load_timeout_s)
        except InferenceServerException as exc:
            if exc.status() == _LATE:
                raise TooSlow(f"Triton: not loaded within {self._load_timeout_s:g} s") from exc
            raise _translate(exc) from exc

    def unload(self, model: str, *, limit_s: float = math.inf) -> None:
        """Let a model go, once it has answered what it accepted; nothing where Triton has none.

        Args:
            model: its name.
            limit_s: how long to wait; at most as long as a load may take.

        Raises:
            TritonError: Triton went away, or was not done in time.
        """
        limit_s = min(limit_s, self._load_timeout_s)
        try:
            self._client.unload_model(model, headers=self._headers, client_timeout=limit_s)
        except InferenceServerException as exc:
            error = _translate(exc)
            if isinstance(error, TritonError):
                raise error from exc

    def config(self, model: str) -> Any:
        """`ModelConfig`, completed by Triton.

        Raises:
            Refused, TritonError: as in `load`.
        """
        try:
            return self._client.get_model_config(model, client_timeout=_QUICK_S).config
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
        """All outputs of a model.

        Args:
            model: its name.
            arrays: every input, with its batch dimension.
            version: a certain one, or "" for the newest.
            queue_s: longest in Triton's queue, where the model's config allows that to be said.
            limit_s: for the answer; at most as long as a load may take.

        Raises:
            Refused, TritonError: as in `load`.
        """
        limit_s = min(limit_s, self._load_timeout_s)
        timeout_us = None if queue_s is None else int(queue_s * 1_000_000)
        inputs = []
        for name, array in arrays.items():
            tensor = client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            inputs.append(tensor)
        try:
            result = self._client.infer(model, inputs, version, timeout=timeout_us, client_timeout=limit_s)
        except InferenceServerException as exc:
            if exc.status() == _LATE and "Deadline Exceeded" in (exc.message() or ""):
                raise TooSlow(f"Triton: no answer within {limit_s:.0f} s") from exc
            raise _translate(exc) from exc
        reply = result.get_response()
        for output, content in zip(reply.outputs, reply.raw_output_contents, strict=False):
            if output.datatype == "BYTES" and len(content) > _LARGEST_TEXTS:
                raise Refused(f"output {output.name!r}: got {len(content)} bytes, expected at most {_LARGEST_TEXTS}")
        return {output.name: result.as_numpy(output.name) for output in reply.outputs}


def _translate(exc: InferenceServerException) -> Refused | TritonError:
    text = exc.message() or ""
    if _NO_ROOM.search(text):
        return TritonError(f"Triton: {_shorten(text)}")
    if _ENDED.search(text):
        return ProcessDied(f"Triton: {_shorten(text)}")
    if exc.status() in _AWAY:
        return Died(f"Triton: {_shorten(text)}")
    return Refused(_shorten(text) + _POLLED * text.endswith(_NOT_POLLED))


def _shorten(text: str) -> str:
    """Triton's reason on one line, of the model itself, without the place in a Python backend and in the mirror."""
    line = " ".join(re.sub(r"\n*At:.*?(?=;|$)", "", text, flags=re.DOTALL).split())
    return _IN_MIRROR.sub("", line).replace(CANDIDATE, "")[:500]
