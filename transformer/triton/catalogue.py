"""What there is: which models serve, which versions of them, and what each is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from transformer.admission import Deadline
from transformer.errors import ModelNotFound, NoReadyVersion, NoServableVersion, NotReady, PredictorUnavailable
from transformer.observability import metrics
from transformer.observability.request_record import current
from transformer.triton.client import Predictor
from transformer.triton.model import Model
from transformer.triton.model_cache import Descriptions
from transformer.triton.synchroniser_client import Synchroniser

DESCRIBED = "the model was described"


class Catalogue:
    """What Triton and the synchroniser say of the models of the repository."""

    def __init__(self, predictor: Predictor, synchroniser: Synchroniser) -> None:
        self._predictor = predictor
        self._synchroniser = synchroniser
        self._descriptions = Descriptions(predictor)

    async def close(self) -> None:
        """Close the channels."""
        await self._synchroniser.close()
        await self._predictor.close()

    async def ready(self) -> bool:
        """Whether requests can be processed."""
        return await self.predictor_ready() and await self._synchroniser.ready()

    async def predictor_ready(self) -> bool:
        """Whether Triton says that it is ready."""
        ready = await self._predictor.ready()
        metrics.PREDICTOR_READY.set(ready)
        return ready

    async def synchroniser_status(self) -> bytes:
        """JSON of what the synchroniser knows: versions, what serves, what was refused and why.

        Raises:
            ModelNotFound: there is none.
            PredictorUnavailable: it does not respond.
        """
        return await self._synchroniser.status()

    async def model(self, name: str, version: str = "", deadline: Deadline | None = None) -> Model:
        """Description of what serves now.

        Args:
            name: of the model.
            version: a certain one, or "" for what serves.
            deadline: of the request that needs it.

        Raises:
            ModelNotFound: no such model or version.
            PredictorUnavailable: the first models are still on their way.
            DeadlineExceeded: Triton did not describe it in time.
        """
        async with deadline.limit(DESCRIBED) if deadline else nullcontext(), self._explaining_absence(name, version):
            model = await self._descriptions.get(name, version)
        current().found(model.name, model.version)
        return model

    async def models(self) -> list[str]:
        """Names of the models that serve, in alphabetical order.

        Raises:
            PredictorUnavailable: Triton does not respond, or the synchroniser, where there is one.
            ModelsNotListed: there is no synchroniser, and Triton demands a secret.
        """
        # From Triton only without a synchroniser: its list demands the secret that loads models.
        names = await self._synchroniser.serving()
        if names is None:
            return await self._predictor.models()
        if not await self.predictor_ready():
            raise PredictorUnavailable(f"Triton at {self._predictor.url} does not respond")
        return names

    async def versions(self, name: str, version: str = "") -> list[str]:
        """Versions of a model that serve, oldest first; the one where one is named.

        Raises:
            ModelNotFound: no such model or version.
            NoReadyVersion: no version of it serves.
        """
        async with self._explaining_absence(name, version):
            versions = await self._predictor.versions(name, version)
        current().found(name, version or versions[-1])
        return versions

    async def config(self, name: str, version: str = "") -> Any:
        """Triton's `inference.ModelConfig` of a model."""
        await self.versions(name, version)
        return await self._predictor.config(name, version)

    @asynccontextmanager
    async def _explaining_absence(self, name: str, version: str) -> AsyncIterator[None]:
        """Distinguish an unknown model (404) from one of which no version serves now, or none can (503).

        Triton cannot: it has never seen a model that was refused, and remembers one that is gone.
        """
        try:
            yield
        except (ModelNotFound, NoReadyVersion) as exc:
            everything = await self._synchroniser.known()
            known = (everything or {}).get(name)
            if known is not None and (version in known.refused or (known.state == "refused" and not version)):
                current().found(name, "")
                raise NoServableVersion(name, version, known.refused.get(version, known.reason)) from exc
            if not await self._synchroniser.ready():
                waiting_for = await self._synchroniser.waiting_for()
                raise NotReady(f"model {name!r} does not serve yet: waiting for {waiting_for}") from exc
            if known is not None:
                current().found(name, "")
                if not version:
                    raise NoReadyVersion(name) from exc
            elif everything is not None and isinstance(exc, NoReadyVersion):
                raise ModelNotFound(f"model {name!r} is unknown") from exc
            raise
