"""The client of the synchroniser, which keeps Triton's models up to date."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from transformer.errors import PredictorUnavailable, SynchroniserNotFound

_TIMEOUT_S = 2.0
_MAX_AGE_S = 1.0  # of the list of models: requests for unknown names must not cost a request each
_LONGEST_REASON = 200
# A library's message follows these, for the operator.
_FAULTS = ("it cannot be judged", "a fault of the synchroniser")


@dataclass(frozen=True)
class KnownModel:
    """A model of the repository.

    Attributes:
        state: `serving`, `loading`, or `refused` where every version is rejected.
        reason: why it is rejected.
        rejected: why versions are rejected, by number.
    """

    state: str
    reason: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict)


class SynchroniserClient:
    """The synchroniser over HTTP, where there is one."""

    def __init__(self, url: str, *, max_age_s: float = _MAX_AGE_S) -> None:
        """Prepare requests.

        Args:
            url: `http://host:port`; empty where Triton has its models from elsewhere.
            max_age_s: how long the list of models is used again.
        """
        self._url = url
        self._ready = not url
        self._known: Mapping[str, KnownModel] | None = None
        self._max_age_s, self._fetched_at = max_age_s, -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False)

    async def close(self) -> None:
        """Close its connections."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._client.aclose()

    async def ready(self) -> bool:
        """Whether every model of the first listing serves or was rejected, and one of them serves.

        Once ready it stays ready: a later bad upload, or the end of the synchroniser, stops no model that serves.
        """
        if not self._ready:
            try:
                self._ready = (await self._client.get("/ready")).is_success
            except httpx.HTTPError:
                return False
        return self._ready

    async def waiting_for(self) -> str:
        """The condition that readiness waits for."""
        try:
            waiting_for: str = (await self._client.get("/ready")).json()["waiting_for"] or "nothing"
        except httpx.HTTPError:
            return f"the synchroniser at {self._url}"
        return waiting_for

    async def known(self) -> Mapping[str, KnownModel] | None:
        """Models of the repository, by name; None where they are unknown."""
        if not self._url:
            return None
        if self._fetching is None and time.monotonic() - self._fetched_at > self._max_age_s:
            self._fetching = asyncio.create_task(self._fetch())
        if self._fetching is not None:
            # Others wait for it as well.
            await asyncio.shield(self._fetching)
        return self._known

    async def serving(self) -> list[str] | None:
        """Names of the models that serve, in alphabetical order; None where there is no synchroniser.

        Raises:
            PredictorUnavailable: it does not respond.
        """
        if not self._url:
            return None
        models = (await self._get_status()).json()["models"]
        return sorted(name for name, model in models.items() if model["serving"])

    async def _fetch(self) -> None:
        try:
            models = (await self._get_status()).json()["models"]
            self._known = {name: _read(model) for name, model in models.items()}
        except PredictorUnavailable:
            self._known = None
        finally:
            self._fetched_at, self._fetching = time.monotonic(), None

    async def status(self) -> bytes:
        """The `/status` of the synchroniser, JSON.

        Raises:
            ModelNotFound: there is no synchroniser.
            PredictorUnavailable: it does not respond.
        """
        if not self._url:
            raise SynchroniserNotFound("no synchroniser is configured (TRANSFORMER_SYNC_URL)")
        return (await self._get_status()).content

    async def _get_status(self) -> httpx.Response:
        try:
            return (await self._client.get("/status")).raise_for_status()
        except httpx.HTTPError as exc:
            raise PredictorUnavailable(f"the synchroniser at {self._url}: {exc or type(exc).__name__}") from exc


def _read(model: Mapping[str, Any]) -> KnownModel:
    """A model of /status; one of an older synchroniser has no state."""
    rejected = {
        number: _shorten(version.get("reason"))
        for number, version in model.get("versions", {}).items()
        if version.get("state") == "refused"
    }
    newest = max(rejected, key=int, default="")
    state = model.get("state") or ("serving" if model.get("serving") else "loading")
    return KnownModel(state, _shorten(model.get("error")) or rejected.get(newest, ""), rejected)


def _shorten(reason: str | None) -> str:
    """A reason for clients."""
    text = reason or ""
    for fault in _FAULTS:
        if text.startswith(fault):
            return fault
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
