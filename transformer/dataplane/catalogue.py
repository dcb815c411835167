"""Which models serve, which versions of them, and their descriptions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from transformer.admission import Deadline
from transformer.dataplane.model_cache import ModelCache
from transformer.errors import ModelNotFound, NoReadyVersion, NoServableVersion, NotReady, PredictorUnavailable
from transformer.observability import metrics
from transformer.observability.request_record import current_request
from transformer.triton.client import TritonClient
from transformer.triton.model import Model
from transformer.triton.synchroniser_client import SynchroniserClient

_DESCRIBED = "the model was described"


class Catalogue:
    """Models of the repository, as Triton and the synchroniser know them."""

    def __init__(self, triton: TritonClient, synchroniser: SynchroniserClient) -> None:
        self._triton = triton
        self._synchroniser = synchroniser
        self._cache = ModelCache(triton)

    async def close(self) -> None:
        """Close the channels."""
        await self._synchroniser.close()
        await self._triton.close()

    async def ready(self) -> bool:
        """Whether requests can be processed."""
        return await self.predictor_ready() and await self._synchroniser.ready()

    async def predictor_ready(self) -> bool:
        """Whether Triton says that it is ready."""
        ready = await self._triton.ready()
        metrics.PREDICTOR_READY.set(ready)
        return ready

    async def synchroniser_status(self) -> bytes:
        """The synchroniser's status as JSON: versions, which serve, which were rejected and why.

        Raises:
            ModelNotFound: there is no synchroniser.
            PredictorUnavailable: it does not respond.
        """
        return await self._synchroniser.status()

    async def model(self, name: str, version: str = "", deadline: Deadline | None = None) -> Model:
        """Description of the version that serves now.

        Args:
            name: of the model.
            version: the requested one, or "" for the one that serves.
            deadline: of the request that needs it.

        Raises:
            ModelNotFound: the model or the version is unknown.
            PredictorUnavailable: the first models are still being loaded.
            DeadlineExceeded: Triton did not describe it in time.
        """
        model = self._cache.peek(name, version)
        if model is None:
            limit = deadline.limit(_DESCRIBED) if deadline else nullcontext()
            async with limit, self._refine_not_found(name, version):
                model = await self._cache.get(name, version)
        current_request().set_model(model.name, model.version)
        return model

    async def responded(self, model: Model, version: str, *, responded: str, deadline: Deadline) -> Model:
        """Description of the version that has just responded, cached as that of `version` from now on.

        Args:
            model: the description so far.
            version: the requested one, or "" for the one that serves.
            responded: the version that has responded.
            deadline: of the request.

        Raises:
            ModelNotFound: it does not serve any more.
        """
        async with deadline.limit(_DESCRIBED):
            return await self._cache.get_responded(model.name, version, responded=responded)

    def forget(self, model: Model, version: str) -> None:
        """Read the description of the requested version again for the next request."""
        self._cache.forget(model.name, version)

    async def is_current(self, model: Model, version: str) -> bool:
        """Whether the version that was described still serves, with as many items at once.

        A whole description of a model with many labels would be too much work for each request that is rejected.
        """
        *_, served = await self.versions(model.name, version)
        config = await self._triton.config(model.name, served)
        return (served, max(config.max_batch_size, 1)) == (model.version, model.max_batch_size)

    async def models(self) -> list[str]:
        """Names of the models that serve, in alphabetical order.

        Raises:
            PredictorUnavailable: Triton does not respond, or the synchroniser, where there is one.
            ModelsNotListed: there is no synchroniser, and Triton demands a secret.
        """
        # From Triton only without a synchroniser: its list demands the secret that loads models.
        names = await self._synchroniser.serving()
        if names is None:
            return await self._triton.models()
        if not await self.predictor_ready():
            raise PredictorUnavailable(f"Triton at {self._triton.url} does not respond")
        return names

    async def names(self) -> list[str]:
        """Names of the models that serve or are being loaded, in alphabetical order; up to a second old.

        Raises:
            PredictorUnavailable: as `models`, where there is no synchroniser.
        """
        known = await self._synchroniser.known()
        if known is None:
            return await self.models()
        return sorted(name for name, model in known.items() if model.state != "refused")

    async def versions(self, name: str, version: str = "") -> list[str]:
        """Versions of a model that serve, oldest first; or only the requested one.

        Raises:
            ModelNotFound: the model or the version is unknown.
            NoReadyVersion: no version of it serves.
        """
        async with self._refine_not_found(name, version):
            versions = await self._triton.versions(name, version)
        current_request().set_model(name, version or versions[-1])
        return versions

    async def config(self, name: str, version: str = "") -> Any:
        """Triton's `inference.ModelConfig` of a model."""
        await self.versions(name, version)
        return await self._triton.config(name, version)

    @asynccontextmanager
    async def _refine_not_found(self, name: str, version: str) -> AsyncIterator[None]:
        """Distinguish an unknown model (404) from one of which no version serves now, or none can (503).

        Triton cannot: it has never seen a model that was rejected, and remembers one that is gone.
        """
        try:
            yield
        except (ModelNotFound, NoReadyVersion) as exc:
            everything = await self._synchroniser.known()
            known = (everything or {}).get(name)
            if known is not None and (version in known.rejected or (known.state == "refused" and not version)):
                current_request().set_model(name, "")
                raise NoServableVersion(name, version, known.rejected.get(version, known.reason)) from exc
            if not await self._synchroniser.ready():
                waiting_for = await self._synchroniser.waiting_for()
                raise NotReady(f"model {name!r} does not serve yet: waiting for {waiting_for}") from exc
            if known is not None:
                current_request().set_model(name, "")
                if not version:
                    raise NoReadyVersion(name) from exc
            elif everything is not None and isinstance(exc, NoReadyVersion):
                raise ModelNotFound(f"model {name!r} is unknown") from exc
            raise
