"""The content of `/status`, and the metrics that show the same."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from predictor.synchroniser.metrics import Metrics

STATES = ("available", "incomplete", "staged", "serving", "refused")
MODEL_STATES = ("serving", "loading", "refused")
# Limits of what /status lists, newest versions first; it counts the others.
_MAX_VERSIONS = 100  # of a model
_MAX_VERSIONS_IN_TOTAL = 5000
_MAX_FOLDERS = 512  # without a model


@dataclass(frozen=True)
class Profiles:
    """In which profile a version runs, where the setting leaves a choice.

    Attributes:
        chosen: its name.
        measured: by profile, how long a request takes as a share of the first one's time; or why it was not chosen.
    """

    chosen: str
    measured: Mapping[str, float | str]


@dataclass(frozen=True)
class VersionStatus:
    """Status of a version.

    Attributes:
        state: one of `STATES`.
        reason: why it is in that state, or what is being done with it.
        since: UTC time when that state began.
        seconds_to_serve: of a version that serves, from the first listing that showed it.
        profile: that it runs in, and its choice; None where the setting names one.
    """

    state: str
    reason: str | None = None
    since: str | None = None
    seconds_to_serve: float | None = None
    profile: Profiles | None = None


@dataclass(frozen=True)
class ModelStatus:
    """Status of a folder of the repository.

    Attributes:
        policy: version policy.
        serving: versions that serve, ascending.
        error: last failure.
        versions: by version number.
        state: one of `MODEL_STATES`.
        since: UTC time when that state began.
    """

    policy: str = ""
    serving: tuple[str, ...] = ()
    error: str | None = None
    versions: dict[str, VersionStatus] = field(default_factory=dict)
    state: str = "loading"
    since: str | None = None


class Status:
    """Written by the synchroniser's threads, read by the HTTP server's."""

    def __init__(self, repository: str, instance: str = "", *, clock: Callable[[], str] | None = None) -> None:
        """Create the status of a synchroniser that has not listed the repository yet.

        Args:
            repository: its address.
            instance: distinguishes several synchronisers; in Kubernetes the pod's name.
            clock: UTC time as text; by default `now`.
        """
        self.metrics = Metrics()
        self._clock = clock or now
        self.ready = False
        self._lock = threading.Lock()
        self._models: dict[str, ModelStatus] = {}
        self._folders: dict[str, ModelStatus] = {}
        self._more_folders = 0
        self._rejected: dict[str, int] = {}  # newest rejected version of each model, which labels its metric
        self._content: dict[str, Any] = {
            "repository": repository,
            "instance": instance,
            "waiting_for": "the first listing of the repository",
            "listing": {"ok": False, "at": None, "failing_since": None, "error": None},
            "triton": {"ok": False, "since": self._clock()},
            "ignored": {},
        }

    def set(self, **parts: Any) -> None:
        """Replace top-level fields of `/status`."""
        with self._lock:
            self._content |= parts

    def set_ready(self, waiting_for: str | None) -> None:
        """Set readiness: ready where `waiting_for` is None."""
        self.ready = waiting_for is None
        self.metrics.ready.set(self.ready)
        self.set(waiting_for=waiting_for)

    def set_triton(self, *, up: bool) -> None:
        """Set whether Triton responds."""
        self.metrics.triton.set(up)
        self.set(triton={"ok": up, "since": self._clock()})

    def set_listed(self) -> None:
        """Record a successful listing of the repository."""
        self.set(listing={"ok": True, "at": self._clock(), "failing_since": None, "error": None})
        self.metrics.listings.labels("ok").inc()
        self.metrics.listed.set_to_current_time()

    def set_listing_failed(self, error: str, *, began: str) -> None:
        """Record a failed listing; `failing_since` is when the first one in a row began, not when it timed out."""
        with self._lock:
            before = self._content["listing"]
            since = before["failing_since"] or began
            self._content["listing"] = {**before, "ok": False, "failing_since": since, "error": error}
        self.metrics.listings.labels("failed").inc()

    def set_folders(self, reasons: Mapping[str, str], *, more: int) -> None:
        """Set the status of folders that hold no model.

        Args:
            reasons: why, by folder; the first `_MAX_FOLDERS` are listed.
            more: number of further folders.
        """
        shown = dict(sorted(reasons.items())[:_MAX_FOLDERS])
        with self._lock:
            self._folders = {
                name: self._with_times(ModelStatus(error=reason, state="refused"), self._folders.get(name))
                for name, reason in shown.items()
            }
            self._more_folders = more + len(reasons) - len(shown)
        self._count_models()

    def set_model(self, name: str, model: ModelStatus | None) -> None:
        """Set the status of a model; None removes it."""
        with self._lock:
            if model is None:
                self._models.pop(name, None)
            else:
                self._models[name] = self._with_times(model, self._models.get(name))
        self._count_models()
        self._count_versions(name, model)
        self._show_rejected(name, model)

    def model(self, name: str) -> ModelStatus:
        """Return the status of a model, empty where it is unknown."""
        with self._lock:
            return self._models.get(name, ModelStatus())

    def as_json(self) -> dict[str, Any]:
        """Return the content of `/status`."""
        with self._lock:
            models = sorted((self._folders | self._models).items())
            content, more = dict(self._content), self._more_folders
        shown, left = {}, _MAX_VERSIONS_IN_TOTAL
        for name, model in models:
            versions = _choose_shown(model, limit=min(left, _MAX_VERSIONS))
            left -= len(versions)
            shown[name] = {
                "state": model.state,
                "since": model.since,
                "policy": model.policy,
                "serving": model.serving,
                "error": model.error,
                "versions": {number: asdict(version) for number, version in versions.items()},
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

    def _with_times(self, model: ModelStatus, before: ModelStatus | None) -> ModelStatus:
        """Fill in `since` of the model and its versions: the time before where the state is the same, otherwise now."""
        known = before.versions if before is not None else {}
        at = self._clock()

        def date(number: str, version: VersionStatus) -> VersionStatus:
            was = known.get(number)
            return replace(version, since=was.since if was is not None and was.state == version.state else at)

        versions = {
            number: version if version.since else date(number, version) for number, version in model.versions.items()
        }
        since = before.since if before is not None and before.state == model.state else at
        return replace(model, versions=versions, since=since)

    def _count_models(self) -> None:
        with self._lock:
            states = [model.state for model in (*self._folders.values(), *self._models.values())]
            more = self._more_folders
        for state in MODEL_STATES:
            self.metrics.models.labels(state).set(states.count(state) + (more if state == "refused" else 0))

    def _count_versions(self, name: str, model: ModelStatus | None) -> None:
        """Set the metrics of a model's versions; None removes them."""
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

    def _show_rejected(self, name: str, model: ModelStatus | None) -> None:
        """Keep one series for each model: the number of models bounds that of the series."""
        versions = model.versions.items() if model else ()
        newest = max((int(number) for number, version in versions if version.state == "refused"), default=None)
        with self._lock:
            before = self._rejected.pop(name, None)
            if newest is not None:
                self._rejected[name] = newest
            if before not in {None, newest}:
                self.metrics.rejected.remove(name, str(before))
            if newest is not None:
                self.metrics.rejected.labels(name, str(newest)).set(1)


def _choose_shown(model: ModelStatus, *, limit: int) -> dict[str, VersionStatus]:
    """Choose the versions that serve, those being validated and the newest others; keep their order."""

    def rank(number: str) -> tuple[bool, bool, int]:
        return number not in model.serving, model.versions[number].state != "staged", -int(number)

    chosen = set(sorted(model.versions, key=rank)[: max(limit, len(model.serving))])
    return {number: version for number, version in model.versions.items() if number in chosen}


def now() -> str:
    """Return the UTC time as `/status` writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
