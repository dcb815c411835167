"""What the synchroniser knows, for people and for Prometheus."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STATES = ("available", "incomplete", "staged", "serving", "refused")
MODEL_STATES = ("serving", "loading", "refused")
# What /status shows, newest versions first; it says how many more there are.
_VERSIONS_SHOWN = 100  # of a model
_VERSIONS_IN_ALL = 5000
_FOLDERS_SHOWN = 512  # that hold no model
_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.versions = Gauge("nereid_sync_versions", "Versions in the repository", ["model", "state"], **options)
        self.serving = Gauge("nereid_sync_serving_version", "Highest version that serves", ["model"], **options)
        self.refused = Gauge(
            "nereid_sync_refused_version", "1 for the newest version that is refused", ["model", "version"], **options
        )
        self.models = Gauge("nereid_sync_models", "Folders of the repository", ["state"], **options)
        self.ready = Gauge("nereid_sync_ready", "1 once every model serves or was refused, and one serves", **options)
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
    """One folder of the repository: see `MODEL_STATES`; since when it is in that state."""

    policy: str = ""
    serving: tuple[str, ...] = ()
    error: str | None = None
    versions: dict[str, VersionStatus] = field(default_factory=dict)
    state: str = "loading"
    since: str | None = None


class Status:
    """Filled by the synchroniser's threads, read by the server's."""

    def __init__(self, repository: str, instance: str = "") -> None:
        """Nothing is known yet.

        Args:
            repository: its address.
            instance: which of several synchronisers this is; in Kubernetes the pod's name.
        """
        self.metrics = Metrics()
        self.ready = False
        self._lock = threading.Lock()
        self._models: dict[str, ModelStatus] = {}
        self._folders: dict[str, ModelStatus] = {}
        self._more_folders = 0
        self._refused: dict[str, int] = {}  # the newest of each model, as its metric names it
        self._content: dict[str, Any] = {
            "repository": repository,
            "instance": instance,
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

    def set_folders(self, reasons: Mapping[str, str], *, more: int) -> None:
        """What is known of folders that hold no model.

        Args:
            reasons: why, by name; of many the first are shown.
            more: how many there are beside them.
        """
        shown = dict(sorted(reasons.items())[:_FOLDERS_SHOWN])
        with self._lock:
            self._folders = {
                name: _since(ModelStatus(error=reason, state="refused"), self._folders.get(name))
                for name, reason in shown.items()
            }
            self._more_folders = more + len(reasons) - len(shown)
        self._count_models()

    def set_model(self, name: str, model: ModelStatus | None) -> None:
        """What is known of a model; None: it is gone."""
        with self._lock:
            if model is None:
                self._models.pop(name, None)
            else:
                self._models[name] = _since(model, self._models.get(name))
        self._count_models()
        self._show_versions(name, model)

    def _show_versions(self, name: str, model: ModelStatus | None) -> None:
        """The metrics of one model; None: it is gone, and they with it."""
        counts = [version.state for version in model.versions.values()] if model else []
        for state in STATES:
            if counts:  # a folder without versions cannot serve one
                self.metrics.versions.labels(name, state).set(counts.count(state))
            else:
                with suppress(KeyError):
                    self.metrics.versions.remove(name, state)
        if model and model.serving:
            self.metrics.serving.labels(name).set(max(map(int, model.serving)))
        else:
            with suppress(KeyError):
                self.metrics.serving.remove(name)
        self._show_refused(name, model)

    def _show_refused(self, name: str, model: ModelStatus | None) -> None:
        """One series for a model, so that their number is bounded by that of the models."""
        versions = model.versions.items() if model else ()
        newest = max((int(number) for number, version in versions if version.state == "refused"), default=None)
        with self._lock:
            before = self._refused.pop(name, None)
            if newest is not None:
                self._refused[name] = newest
            if before not in {None, newest}:
                self.metrics.refused.remove(name, str(before))
            if newest is not None:
                self.metrics.refused.labels(name, str(newest)).set(1)

    def set_version(self, name: str, version: int, known: VersionStatus) -> None:
        """What is known of one version."""
        model = self.model(name)
        self.set_model(name, replace(model, versions={**model.versions, str(version): known}))

    def model(self, name: str) -> ModelStatus:
        """What is known of a model."""
        with self._lock:
            return self._models.get(name, ModelStatus())

    def as_json(self) -> dict[str, Any]:
        """The content of `/status`."""
        with self._lock:
            models = sorted((self._folders | self._models).items())
            content, more = dict(self._content), self._more_folders
        shown, left = {}, _VERSIONS_IN_ALL
        for name, model in models:
            versions = _choose_shown(model, most=min(left, _VERSIONS_SHOWN))
            left -= len(versions)
            shown[name] = {
                "state": model.state,
                "since": model.since,
                "policy": model.policy,
                "serving": model.serving,
                "error": model.error,
                "versions": {number: vars(version) for number, version in versions.items()},
                "more_versions": len(model.versions) - len(versions),
            }
        return {
            "repository": content.pop("repository"),
            "instance": content.pop("instance"),
            "ready": self.ready,
            **content,
            "models": shown,
            "more_models": more,
        }

    def _count_models(self) -> None:
        with self._lock:
            states = [model.state for model in (*self._folders.values(), *self._models.values())]
            more = self._more_folders
        for state in MODEL_STATES:
            self.metrics.models.labels(state).set(states.count(state) + (more if state == "refused" else 0))


def _choose_shown(model: ModelStatus, *, most: int) -> dict[str, VersionStatus]:
    """The versions that serve, those that are tried, and the newest of the others, in their order."""

    def rank(number: str) -> tuple[bool, bool, int]:
        return number not in model.serving, model.versions[number].state != "staged", -int(number)

    chosen = set(sorted(model.versions, key=rank)[: max(most, len(model.serving))])
    return {number: version for number, version in model.versions.items() if number in chosen}


def _since(model: ModelStatus, before: ModelStatus | None) -> ModelStatus:
    """The model, with the time since when it and each of its versions are in their states."""
    known = before.versions if before is not None else {}
    at = now()

    def date(number: str, version: VersionStatus) -> VersionStatus:
        was = known.get(number)
        return replace(version, since=was.since if was is not None and was.state == version.state else at)

    versions = {
        number: version if version.since else date(number, version) for number, version in model.versions.items()
    }
    since = before.since if before is not None and before.state == model.state else at
    return replace(model, versions=versions, since=since)


def now() -> str:
    """The time, as `/status` writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
