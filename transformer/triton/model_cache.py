"""What each model is, remembered for a moment, so that a request does not ask Triton twice."""

import asyncio
import time

from transformer.triton.client import Predictor
from transformer.triton.model import Model

_MAX_AGE_S = 10.0


class Descriptions:
    """Descriptions by name and version ("" for what serves), fetched once however many requests wait for one."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._fetched: dict[tuple[str, str], tuple[float, Model]] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[Model]] = {}

    async def get(self, name: str, version: str) -> Model:
        """The description of a model, at most `_MAX_AGE_S` old.

        Raises:
            ServingError: Triton does not know it, or does not answer.
        """
        key = name, version
        at, model = self._fetched.get(key, (0.0, None))
        if model is not None and time.monotonic() - at < _MAX_AGE_S:
            return model
        if key not in self._fetching:
            self._fetching[key] = asyncio.create_task(self._fetch(name, version))
            # Where nobody waits any more, asyncio would log its error with a traceback.
            self._fetching[key].add_done_callback(lambda task: task.cancelled() or task.exception())
        # Shielded: the client that asked first may go away while others wait.
        return await asyncio.shield(self._fetching[key])

    async def get_answered(self, name: str, version: str, *, answered: str) -> Model:
        """The description of the version that has just answered, which is from now on the one of `version`.

        Raises:
            ServingError: it is gone again, or Triton does not answer.
        """
        model = await self.get(name, answered)
        self.forget(name, answered)  # versions come and go
        self._fetched[name, version] = (time.monotonic(), model)
        return model

    def forget(self, name: str, version: str) -> None:
        """The model may have changed: ask again next time."""
        self._fetched.pop((name, version), None)

    async def _fetch(self, name: str, version: str) -> Model:
        key = name, version
        try:
            model = await self._predictor.describe(name, version)
            self._fetched[key] = (time.monotonic(), model)
            return model
        except BaseException:
            self._fetched.pop(key, None)
            raise
        finally:
            del self._fetching[key]
