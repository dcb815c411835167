"""Calls to a model that survive a swap of its versions."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from transformer.admission import Deadline
from transformer.errors import ModelNotFound, PredictorError, VersionsChanging
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model
from transformer.triton.status import TensorRejected

T = TypeVar("T")

SWAP_TRIES = 5  # of a request during which versions are swapped


class Models(Protocol):
    """Where descriptions of models come from."""

    async def model(self, name: str, version: str, deadline: Deadline) -> Model:
        """Description of the version that serves now."""

    async def responded(self, model: Model, version: str, *, responded: str, deadline: Deadline) -> Model:
        """Description of the version that has just responded, cached as that of `version` from now on."""

    def forget(self, model: Model, version: str) -> None:
        """Read the description again for the next request."""

    async def is_current(self, model: Model, version: str) -> bool:
        """Whether the version that was described still serves."""


class SwapSafeCall:
    """Calls of one request, repeated until the version that responds is one that the tensors were made for.

    Labels, sizes and interface belong to a version; during a swap the description may be of the old one and the
    response of the new one. Where the new one takes the same tensors, its description is used with the response, else
    the call is repeated.
    """

    def __init__(self, models: Models, model: Model, options: InferOptions) -> None:
        """Prepare calls.

        Args:
            models: describes versions.
            model: the version that serves, as far as is known.
            options: of the request: version and deadline.
        """
        self._models = models
        self.options = options
        self.model = model

    async def run(self, call: Callable[[Model], Awaitable[tuple[T, set[str]]]]) -> tuple[Model, T]:
        """Make a call.

        Args:
            call: with tensors for this model; returns a result and the versions that responded.

        Returns:
            The version that responded, and the result.

        Raises:
            VersionsChanging: swaps followed each other too quickly.
            ServingError: of the call.
        """
        requested, deadline = self.options.version, self.options.deadline
        for attempt in range(SWAP_TRIES):
            model = self.model if not attempt else await self._describe_again()
            try:
                result, responded = await call(model)
            except (PredictorError, ModelNotFound) as exc:
                # The model may have changed or be gone.
                self._models.forget(model, requested)
                if not isinstance(exc, TensorRejected) or await self._models.is_current(model, requested):
                    raise
                continue
            if responded == {model.version}:
                return model, result
            self._models.forget(model, requested)
            if len(responded) == 1:
                with suppress(ModelNotFound):  # the next swap
                    swapped = await self._models.responded(
                        model, requested, responded=min(responded), deadline=deadline
                    )
                    self.model = swapped
                    if swapped.takes_the_same_as(model):
                        return swapped, result
        raise VersionsChanging(self.model.name, SWAP_TRIES)

    async def _describe_again(self) -> Model:
        self.model = await self._models.model(self.model.name, self.options.version, self.options.deadline)
        return self.model
