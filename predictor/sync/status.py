"""What the synchroniser knows, for people and for Prometheus."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STATES = ("available", "incomplete", "staged", "serving", "refused")
_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.versions = Gauge("nereid_sync_versions", "Versions in the repository", ["model", "state"], **options)
        self.ready = Gauge("nereid_sync_ready", "1 once every model serves or was refused", **options)
        self.listed = Gauge(
            "nereid_sync_last_listing_timestamp_seconds", "Last successful listing of the repository", **options
        )
        self.listings = Counter("nereid_sync_listings_total", "Listings", ["result"], **options)
        self.triton = Gauge("nereid_sync_triton_up", "1 while Triton answers", **options)
        self.loads = Counter("nereid_sync_loads_total", "Loads of a model", ["model", "result"], **options)
        self.refusals = Counter("nereid_sync_refusals_total", "Versions refused", ["model"], **options)
        self.failures = Counter(
            "nereid_sync_failures_total", "What failed for a passing reason, and is tried again", ["model"], **options
        )
        self.downloaded = Counter("nereid_sync_downloaded_bytes_total", "Bytes taken from the repository", **options)
        self.seconds = Histogram(
            "nereid_sync_seconds_to_serve",
            "From a version being seen in the repository to its serving",
            ["model"],
            buckets=_SECONDS,
            **options,
        )


@dataclass(frozen=True)
class VersionStatus:
    """One version: see `STATES`."""

    state: str
    reason: str | None = None
    since: str | None = None
    seconds_to_serve: float | None = None


@dataclass(frozen=True)
class ModelStatus:
    """One model."""

    policy: str = ""
    serving: tuple[str, ...] = ()
    error: str | None = None
    versions: dict[str, VersionStatus] = field(default_factory=dict)


class Status:
    """Filled by the synchroniser's threads, read by the server's."""

    def __init__(self, repository: str) -> None:
        self.metrics = Metrics()
        self.ready = False
        self._lock = threading.Lock()
        self._models: dict[str, ModelStatus] = {}
        self._content: dict[str, Any] = {
            "repository": repository,
            "waiting_for": "the first listing of the repository",
            "listing": {"ok": False, "at": None, "failing_since": None, "error": None},
            "triton": {"ok": False, "since": now()},
            "ignored": {},
        }

    def set(self, **parts: Any) -> None:
        """Replace parts of what `/status` says."""
        with self._lock:
            self._content |= parts

    def set_ready(self, waiting_for: str | None) -> None:
        """Ready where nothing is waited for."""
        self.ready = waiting_for is None
        self.metrics.ready.set(self.ready)
        self.set(waiting_for=waiting_for)

    def set_model(self, name: str, model: ModelStatus | None) -> None:
        """What is known of a model; None: it is gone."""
        with self._lock:
            if model is None:
                self._models.pop(name, None)
            else:
                self._models[name] = model
        counts = [version.state for version in model.versions.values()] if model else []
        for state in STATES:
            if model is not None:
                self.metrics.versions.labels(name, state).set(counts.count(state))
            else:
                with suppress(KeyError):
                    self.metrics.versions.remove(name, state)

    def set_version(self, name: str, version: int, known: VersionStatus) -> None:
        """What is known of one version."""
        model = self.model(name)
        self.set_model(name, replace(model, versions={**model.versions, str(version): known}))

    def model(self, name: str) -> ModelStatus:
        """What is known of a model."""
        with self._lock:
            return self._models.get(name, ModelStatus())

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        with self._lock:
            models = sorted(self._models.items())
            content = dict(self._content)
        return {
            "repository": content.pop("repository"),
            "ready": self.ready,
            **content,
            "models": {
                name: {
                    "policy": model.policy,
                    "serving": model.serving,
                    "error": model.error,
                    "versions": {number: vars(version) for number, version in model.versions.items()},
                }
                for name, model in models
            },
        }


def now() -> str:
    """The time, as `/status` writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
