"""Descriptions of models, cached for some seconds, so that most requests need no description from Triton."""

import asyncio
import time

from transformer import tasks
from transformer.errors import ModelNotFound
from transformer.triton.client import TritonClient
from transformer.triton.model import Model

_MAX_AGE_S = 10.0


class ModelCache:
    """Descriptions by name and version ("" for the one that serves); concurrent requests share a fetch."""

    def __init__(self, triton: TritonClient) -> None:
        self._triton = triton
        self._fetched: dict[tuple[str, str], tuple[float, Model]] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[Model]] = {}

    async def get(self, name: str, version: str) -> Model:
        """The description of a model, at most `_MAX_AGE_S` old.

        Raises:
            ServingError: Triton does not know it, or does not respond.
        """
        return self.peek(name, version) or await self._fetch_once(name, version)

    def peek(self, name: str, version: str) -> Model | None:
        """The description, where it is cached."""
        at, model = self._fetched.get((name, version), (0.0, None))
        return model if model is not None and time.monotonic() - at < _MAX_AGE_S else None

    async def get_responded(self, name: str, version: str, *, responded: str) -> Model:
        """The description of the version that has just responded, cached as that of `version` from now on.

        Raises:
            ServingError: it is gone again, or Triton does not respond.
        """
        model = await self.get(name, responded)
        self.forget(name, responded)  # versions come and go
        self._fetched[name, version] = (time.monotonic(), model)
        return model

    def forget(self, name: str, version: str) -> None:
        """Fetch the description again for the next request."""
        self._fetched.pop((name, version), None)

    async def _fetch_once(self, name: str, version: str) -> Model:
        key = name, version
        if key not in self._fetching:
            self._fetching[key] = asyncio.create_task(self._fetch(name, version))
            # asyncio logs the error of a task whose result is never read, with a traceback.
            self._fetching[key].add_done_callback(lambda task: task.cancelled() or task.exception())
        # Shielded: the client that came first may disconnect while others wait.
        return await asyncio.shield(self._fetching[key])

    async def _fetch(self, name: str, version: str) -> Model:
        key = name, version
        try:
            model = await self._describe(name, version)
            self._fetched[key] = (time.monotonic(), model)
            return model
        except BaseException:
            self._fetched.pop(key, None)
            raise
        finally:
            del self._fetching[key]

    async def _describe(self, name: str, version: str) -> Model:
        while True:
            *_, served = await self._triton.versions(name, version)
            try:
                return tasks.describe(await self._triton.config(name, served), version=served)
            except ModelNotFound:
                if version:  # else a swap came in between, and another version serves
                    raise
