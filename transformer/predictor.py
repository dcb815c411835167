"""The wire to Triton: v2 over gRPC, the only module that knows tritonclient and its errors."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from transformer.errors import (
    ModelNotFound,
    Overloaded,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
    ServingError,
)
from transformer.model import Model, describe


class TensorRefused(PredictorError):
    """Triton takes no such tensor. We made it, so the client is not to blame: the model has changed, or is wrong."""


# What Triton and the channel mean by each gRPC status.
_ERRORS: Mapping[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.CANCELLED: PredictorUnavailable,
    grpc.StatusCode.UNKNOWN: PredictorError,
    grpc.StatusCode.INVALID_ARGUMENT: TensorRefused,
    grpc.StatusCode.DEADLINE_EXCEEDED: PredictorTimeout,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.ALREADY_EXISTS: PredictorError,
    grpc.StatusCode.PERMISSION_DENIED: PredictorError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: PredictorError,
    grpc.StatusCode.ABORTED: PredictorError,
    grpc.StatusCode.OUT_OF_RANGE: PredictorError,
    grpc.StatusCode.UNIMPLEMENTED: PredictorError,
    grpc.StatusCode.INTERNAL: PredictorError,
    grpc.StatusCode.UNAVAILABLE: PredictorUnavailable,
    grpc.StatusCode.DATA_LOSS: PredictorError,
    grpc.StatusCode.UNAUTHENTICATED: PredictorError,
}

_CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The default grows to two minutes: far too long after Triton is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Hosts are loopback or cluster-internal; a proxy from the environment must not stand in between.
    ("grpc.enable_http_proxy", 0),
]
_QUICK_TIMEOUT_S = 5.0  # of calls that run no model


class Predictor:
    """Triton, seen from the transformer."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Prepare a channel to `host:port`; it connects, and reconnects, by itself."""
        self.url = url
        self._timeout_s = timeout_s
        self._client = triton.InferenceServerClient(url, channel_args=_CHANNEL_ARGS)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def ready(self) -> bool:
        """Whether Triton answers and says that it is ready."""
        try:
            return bool(await self._client.is_server_ready(client_timeout=_QUICK_TIMEOUT_S))
        except InferenceServerException:
            return False

    async def describe(self, name: str, version: str = "") -> Model:
        """Description of a model's version; of the newest that serves where none is named.

        Raises:
            ServingError: as Triton answers, see `_ERRORS`.
        """
        while True:
            served = await self._newest(name, version)
            try:
                config = await self._client.get_model_config(name, version, client_timeout=_QUICK_TIMEOUT_S)
            except InferenceServerException as exc:
                raise translate(exc, name) from exc
            # A config carries no version: it is that of `served` if the version is still the same afterwards.
            if await self._newest(name, version) == served:
                return describe(config.config, version=served)

    async def versions(self, name: str) -> list[str]:
        """Versions of a model that serve, oldest first."""
        try:
            metadata = await self._client.get_model_metadata(name, client_timeout=_QUICK_TIMEOUT_S)
        except InferenceServerException as exc:
            raise translate(exc, name) from exc
        return sorted(metadata.versions, key=int)

    async def infer(
        self, model: Model, tensor: NDArray[Any], *, version: str = ""
    ) -> tuple[dict[str, NDArray[Any]], str]:
        """Run a model.

        Args:
            model: whose input and outputs are meant.
            tensor: `(batch, ...)`, at most `model.max_batch_size` items.
            version: a certain one, or "" for what Triton's policy serves.

        Returns:
            Outputs by name, `(batch, ...)`, and the version that answered.

        Raises:
            ServingError: as Triton answers, see `_ERRORS`.
        """
        item = triton.InferInput(model.input.name, tensor.shape, model.input.datatype)
        item.set_data_from_numpy(np.ascontiguousarray(tensor))
        outputs = [triton.InferRequestedOutput(output.name) for output in model.outputs]
        try:
            result = await self._client.infer(
                model.name, [item], model_version=version, outputs=outputs, client_timeout=self._timeout_s
            )
        except InferenceServerException as exc:
            raise translate(exc, model.name) from exc
        return {output.name: result.as_numpy(output.name) for output in model.outputs}, (
            result.get_response().model_version
        )

    async def _newest(self, name: str, version: str) -> str:
        versions = await self.versions(name)
        if version and version not in versions:
            raise ModelNotFound(f"model {name!r} has no version {version!r}; expected one of {', '.join(versions)}")
        if not versions:
            raise PredictorUnavailable(f"model {name!r} has no version that serves")
        return version or versions[-1]


def translate(exc: InferenceServerException, name: str) -> ServingError:
    """Triton's error as one of ours."""
    code = next((code for code in grpc.StatusCode if str(code) == exc.status()), grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.NOT_FOUND:
        # Triton says NOT_FOUND of a model that it knows as well, while no version of it serves.
        if "no available versions" in exc.message():
            return PredictorUnavailable(f"model {name!r} has no version that serves")
        return ModelNotFound(f"model {name!r} is unknown")
    return _ERRORS[code](f"model {name!r}: {exc.message()}")
