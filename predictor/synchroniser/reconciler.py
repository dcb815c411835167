"""The reconciler of one model: compares what the repository wants with what serves, and takes the next step."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

from predictor.synchroniser.deployment import Deployment, find_incompatible
from predictor.synchroniser.errors import LoadFailed, is_transient
from predictor.synchroniser.ledger import MAX_ATTEMPTS, Activation, VersionLedger
from predictor.synchroniser.profile_choice import ProfileChoice
from predictor.synchroniser.retries import Retries
from predictor.synchroniser.services import Services
from predictor.synchroniser.signatures import KeptSignatures
from predictor.synchroniser.source import ModelSource
from predictor.synchroniser.staging import Candidate
from predictor.synchroniser.status import Profiles, now
from predictor.synchroniser.trial import CandidateTrial
from predictor.synchroniser.uploads import ModelListing, Uploads
from predictor.synchroniser.verdicts import Verdicts
from predictor.synchroniser.version_choice import select_versions
from predictor.synchroniser.view import ModelState, explain_policy, join_numbers, view_model
from registry.errors import Incomplete, TransientError, VersionRejected
from registry.layout import ModelFolder

log = logging.getLogger("synchroniser")

_SETTLING_S = 30.0
_PATIENCE_S = 60.0  # with a model whose versions fail, before others are ready without it


class ModelReconciler:
    """Reconciles one model; `reconcile` runs in one thread at a time, the other methods in the loop's.

    Attributes:
        name: of the model.
        listing: the model in the last listing; the loop replaces it at any time.
        task: the call of `reconcile` that is in progress.
    """

    def __init__(self, name: str, services: Services) -> None:
        """Begin before the first listing; the mirror may hold a generation from before."""
        self.name = name
        self.listing: ModelListing | None = None
        self.task: Future[None] | None = None
        self._services, self._triton, self._clock = services, services.triton, services.clock
        metrics, poll_s = services.status.metrics, services.settings.poll_s
        self._deployment = Deployment(name, services)
        self._ledger = VersionLedger(name, services.mirror.records)
        self._retries = Retries(name, metrics=metrics, poll_s=poll_s, clock=self._clock)
        self._source = ModelSource(name, services.settings, services.storage, services.trust)
        self._signatures = KeptSignatures(name, services)
        self._uploads = Uploads(services.settings.settle_s)
        self._verdicts = Verdicts(name, services, self._ledger, self._retries)
        self._choice = ProfileChoice(name, services, self._deployment)
        self._trial = CandidateTrial(services, self._deployment, self._ledger, self._verdicts)
        services.isolation.suspect(name, self._ledger.crashes)
        self._in_progress: dict[int, str] = {}
        self._profiles: dict[int, Profiles | None] = {}
        self._is_running = False
        self._blocked: str | None = None  # why no version can be checked
        self._began = self._clock()
        self._handled: ModelFolder | None = None

    # For the loop

    @property
    def serving(self) -> Mapping[int, str]:
        """Fingerprints of the versions that the mirror has, by version."""
        return self._deployment.current.fingerprints

    @property
    def is_loaded(self) -> bool:
        """Whether Triton has loaded them."""
        return self._deployment.is_loaded

    @property
    def is_gone(self) -> bool:
        """Whether neither the repository nor the mirror has the model."""
        return self.task is None and self.listing is not None and self.listing.folder is None and not self.serving

    @property
    def is_settled(self) -> bool:
        """Whether the model serves or has no version that could, or a defect keeps it from that."""
        return self.is_loaded or self._retries.has_defect or (self.task is None and self._is_idle)

    @property
    def is_failing(self) -> bool:
        """Whether all versions have failed so often that the readiness of the other models ignores this one."""
        if self.is_loaded:
            return False
        if self._retries.has_defect:
            return True
        elapsed_s = self._clock() - self._began
        if self._trial.failures >= MAX_ATTEMPTS and elapsed_s > _PATIENCE_S:
            return True  # however many versions there are
        if self.task is not None:
            return False
        if self.settles_at is not None:  # an upload may go on forever
            return elapsed_s > MAX_ATTEMPTS * self._services.settings.settle_s + _SETTLING_S
        return self._retries.failures >= MAX_ATTEMPTS or (
            self._retries.due_at is None and bool(self._ledger.postponed)
        )  # fmt: skip

    @property
    def settles_at(self) -> float | None:
        """Monotonic time; a listing that begins then, and shows no change, completes an upload."""
        return self._uploads.settles_at

    @property
    def next_due(self) -> float | None:
        """Monotonic time when `reconcile` is due without a new listing."""
        if self.task is not None:
            return None
        return min((at for at in (self._retries.due_at, self._ledger.next_attempt) if at is not None), default=None)

    @property
    def is_due(self) -> bool:
        """Whether `reconcile` has something to do."""
        if self.listing is not None:
            is_removed = self.listing.folder is None and self.serving and self._retries.due_at is None
            if self.listing.folder != self._handled or is_removed:
                return True
            if self.settles_at is not None and self.listing.began >= self.settles_at:
                return True
        if self._retries.due_at is not None:
            return self._retries.is_due
        if (postponed_until := self._ledger.next_attempt) is not None and self._clock() >= postponed_until:
            return True
        return bool(self.serving) and (
            self._deployment.is_examination_due or not self.is_loaded or self._choice.is_due
        )  # fmt: skip

    def suspect(self) -> None:
        """Have the model examined: requests to it have failed."""
        self._deployment.is_suspect = True

    def mark_lost(self) -> None:
        """Record that Triton no longer has the versions that serve."""
        self._deployment.is_loaded = False

    def reconcile(self) -> None:
        """Take the next step; models take turns, so it is called again until none is left."""
        self._retries.due_at = self._uploads.settles_at = None
        self._is_running = True
        if self.listing is not None:
            self._handled = self.listing.folder
        try:
            self._signatures.withdraw_unsigned(self._deployment)
            if self.serving and self._deployment.is_examination_due:
                self._deployment.examine()
            if self.serving and not self.is_loaded:
                self._reload()
            if self.listing is not None and not self._services.stopped.is_set() and self._reconcile_once(self.listing):
                self._retries.due_at = self._clock()  # the next step
            self._retries.has_defect = False
        except Exception as exc:  # noqa: BLE001 - a defect must not stop the other models
            self._retries.fail(exc)
        finally:
            self._in_progress.clear()
            self._is_running = False
            self._show()

    # Steps

    def _reconcile_once(self, listing: ModelListing) -> bool:
        """Try one candidate, or activate the selected versions; False where nothing is left to do."""
        self._handled = folder = listing.folder
        self._choice.pending = None  # until it is known again what serves
        self._ledger.end_postponements(self._clock())
        self._blocked = None
        if folder is None or not folder.versions:
            self._remove()
            if folder is not None:
                self._retries.error = self._source.explain_no_version(folder, listing.ignored)
            return False
        try:
            candidates, policy = self._source.read(folder)
        except VersionRejected as exc:
            self._blocked = str(exc)
            self._retries.error = f"{exc}; what serves goes on serving" if self.serving else str(exc)
            log.warning("%s: %s", self.name, self._retries.error)
            return False
        candidates = self._choice.apply(candidates, policy, self._ledger.rejected)
        self._profiles = {version: self._choice.describe(candidate) for version, candidate in candidates.items()}
        fingerprints = {version: candidate.fingerprint for version, candidate in candidates.items()}
        self._check_uploads(candidates, listing)
        selected = select_versions(
            fingerprints,
            policy,
            serving=self.serving,
            unusable=self._ledger.unusable,
            incompatible=self._ledger.incompatible,
        )
        self._show()
        if selected == self.serving:
            unchanged = [version for version, key in selected.items() if key == fingerprints.get(version)]
            problem = self._signatures.update(self._deployment.current.folder, unchanged, folder)
            self._finish(explain_policy(policy, fingerprints) or self._ledger.postponements(fingerprints) or problem)
            self._choice.look(candidates, self.serving)
            return self._choice.is_due and self._choose_profile()
        self._advance(selected, candidates, listing)
        return True

    def _check_uploads(self, candidates: Mapping[int, Candidate], listing: ModelListing) -> None:
        """Record which versions are incomplete."""
        fingerprints = {version: candidate.fingerprint for version, candidate in candidates.items()}
        self._uploads.update(fingerprints, began=listing.began)
        self._ledger.begin_listing(set(fingerprints.values()), serving=self.serving.values())
        self._ledger.forget_unsigned({candidate.fingerprint: candidate.signature for candidate in candidates.values()})
        for version, candidate in candidates.items():
            key = fingerprints[version]
            if self._ledger.rejected.get(key) is None and key not in self.serving.values():
                with self._verdicts.recorded(version, key):
                    self._uploads.check(candidate, listing)

    def _advance(
        self, selected: Mapping[int, str], candidates: Mapping[int, Candidate], listing: ModelListing
    ) -> None:  # fmt: skip
        """Run the trial of the newest version without one, or activate the versions."""
        self._triton.wait_until_up(self._services.stopped)
        validated = {version: key for version, key in selected.items() if key in self._ledger.validated}
        if validated and not self.serving:  # the trials of the others may take long
            selected = validated
        for version in sorted(selected, reverse=True):
            if selected[version] != self.serving.get(version) and selected[version] not in self._ledger.validated:
                self._try(candidates[version], listing)
                return
        self._activate(selected)

    def _try(self, candidate: Candidate, listing: ModelListing) -> None:
        """Run the trial of a candidate."""
        with self._verdicts.recorded(candidate.version, candidate.fingerprint, signature=candidate.signature):
            try:
                self._trial.run(
                    candidate,
                    report=partial(self._report, candidate.version),
                    is_outdated=lambda: self.listing is not None and self.listing.folder != listing.folder,
                )
            except Incomplete as exc:
                self._uploads.wait(candidate, listing, exc)
                raise

    def _activate(self, selected: Mapping[int, str]) -> None:
        """Have versions that serve or are validated serve together, or write to the ledger why that failed."""
        self._report(max(selected), "loading")
        before = self._deployment.current
        fresh = [version for version, key in selected.items() if key != before.fingerprints.get(version)]
        try:
            sources = {
                version: self._ledger.validated[key] if version in fresh else before.folder
                for version, key in selected.items()
            }
            if incompatible := find_incompatible(sources):
                self._verdicts.set_incompatible(incompatible, selected)
                return
            self._deployment.activate(sources, selected, keep=self._ledger.validated.values())
        except Exception as exc:
            # A version that serves already would be selected again at once.
            if not fresh or (is_transient(exc) and not isinstance(exc, LoadFailed)):
                raise
            self._verdicts.end_activation(max(fresh), selected[max(fresh)], exc)
            return
        self._record_activation(selected, before.fingerprints)
        self._retries.succeed()
        self._in_progress.clear()
        self._show()
        self._deployment.clean()

    def _record_activation(self, selected: Mapping[int, str], before: Mapping[int, str]) -> None:
        activations: dict[str, Activation | None] = dict.fromkeys(selected.values())
        for version, key in sorted(selected.items()):
            if before.get(version) == key:
                continue
            if key in self._choice.changed and version in before:
                self._choice.changed.discard(key)
                activations[key] = self._ledger.activations.get(before[version])
                log.info("%s: version %d serves in another profile", self.name, version)
            else:
                seconds = self._clock() - self._uploads.first_seen(version)
                activations[key] = Activation(now(), seconds)
                self._deployment.metrics.seconds.labels(self.name).observe(seconds)
                log.info("%s: version %d serves, %.1f s after it was listed first", self.name, version, seconds)
        self._ledger.activate(activations)
        self._uploads.forget_changes()
        if retired := before.keys() - selected.keys():
            log.info("%s: version %s is retired", self.name, join_numbers(retired))

    def _finish(self, error: str | None) -> None:
        """Remove files that only the steps before needed: nothing is left to do."""
        self._retries.succeed(error)
        self._ledger.validated.clear()
        self._deployment.clean()
        self._services.isolation.clear(self.name, self._ledger.crashes)

    def _choose_profile(self) -> bool:
        """Measure another profile of the version that serves; it takes its place in the next step, if it is faster."""
        if (chosen := self._choice.measure()) is None:
            self._deployment.clean()
        else:
            folder = self._services.mirror.staging_folder(self.name, chosen.version, chosen.fingerprint)
            self._ledger.set_validated(chosen.fingerprint, folder, unverified=None)
        return True

    def _reload(self) -> None:
        """Load the generation of before: this process, or Triton, has started again."""
        versions = join_numbers(self.serving)
        self._triton.wait_until_up(self._services.stopped)
        try:
            self._deployment.load()
        except VersionRejected as exc:  # perhaps by another version of Triton
            reason = f"version {versions} does not load any more: {exc}"
            if self.listing is None:
                raise TransientError(reason) from exc
            log.warning("%s: %s", self.name, reason)
            self._deployment.discard()  # it gets a trial like any other version
            return
        self._retries.succeed()
        log.info("%s: version %s serves", self.name, versions)

    def _remove(self) -> None:
        """Unload a model that the repository no longer has, and forget its versions."""
        if self.serving:
            self._triton.wait_until_up(self._services.stopped)
            self._deployment.unload()
            self._deployment.discard()
            log.info("%s: removed from the repository, and unloaded", self.name)
        self._deployment.clean()
        self._services.isolation.clear(self.name, self._ledger.crashes)
        self._ledger.clear()
        self._choice.clear()
        self._uploads.clear()
        self._retries.error = None

    # State

    @property
    def _is_idle(self) -> bool:
        """Whether no retry, listing or upload is waited for."""
        waits = self._retries.due_at is not None or self.settles_at is not None or self._ledger.postponed
        return not waits and self.listing is not None and self.listing.folder == self._handled

    def _report(self, version: int, text: str) -> None:
        self._in_progress[version] = text
        self._show()

    def _show(self) -> None:
        """Update `/status`."""
        folder = self.listing.folder if self.listing is not None else None
        if folder is None and not self.serving:
            self._services.status.set_model(self.name, None)
            return
        if not self.is_loaded:
            self._ledger.activations.clear()
        state = ModelState(
            fingerprints=self._uploads.fingerprints,
            serving=self.serving if self.is_loaded else {},
            policy=self._source.policy_text,
            error=self._retries.error,
            in_progress=self._in_progress,
            profiles=self._profiles,
            is_listed=self.listing is not None,
            blocked=dict.fromkeys(folder.versions, self._blocked) if self._blocked and folder is not None else {},
            may_change=self._is_running or not self._is_idle,
            has_defect=self._retries.has_defect,
        )
        self._services.status.set_model(self.name, view_model(self._ledger, state))
