"""The trial of a candidate: staged, loaded under a name of its own, and validated there."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from predictor.synchroniser.deployment import Deployment
from predictor.synchroniser.errors import TritonDied, TritonTimeout, is_transient
from predictor.synchroniser.ledger import MAX_ATTEMPTS, VersionLedger
from predictor.synchroniser.retries import pause_after
from predictor.synchroniser.services import Services
from predictor.synchroniser.staging import Candidate, find_golden, read_config, stage
from predictor.synchroniser.validation import validate
from predictor.synchroniser.verdicts import Verdicts
from registry import config as configs
from registry.errors import Incomplete, TransientError, VersionRejected

log = logging.getLogger("synchroniser")

_VALIDATION_S = 120.0  # of all requests; as long as a load where the first request builds engines
_CRASH_PAUSE_S = 3600.0  # before another trial of a version whose trials ended this process repeatedly

Report = Callable[[str], None]


class CandidateTrial:
    """The trials of one model's candidates.

    Attributes:
        failures: how many trials found no valid version.
    """

    def __init__(self, services: Services, deployment: Deployment, ledger: VersionLedger, verdicts: Verdicts) -> None:
        """Prepare trials beside a deployment."""
        self.failures = 0
        self._services, self._deployment, self._ledger, self._verdicts = services, deployment, ledger, verdicts

    def run(self, candidate: Candidate, *, report: Report, is_outdated: Callable[[], bool]) -> None:
        """Run the trial of a candidate, and write to the ledger that it passed, or failed for another reason.

        Args:
            candidate: the version.
            report: called with what is being done.
            is_outdated: whether the repository has changed since; the result is dropped then.

        Raises:
            Incomplete: a file is missing.
            VersionRejected: it must not serve.
            TransientError, OSError: a retry is due.
        """
        model, version, key = candidate.model, candidate.version, candidate.fingerprint
        if self._ledger.skip_crashing(key):
            self._services.isolation.clear(model, [key])
            reason = f"this process ended {MAX_ATTEMPTS} times during its trial"
            self._verdicts.postpone(version, key, TransientError(reason), pause_s=_CRASH_PAUSE_S)
            return
        with self._services.isolation.trial():
            try:
                with self._ledger.trial(key):
                    self._judge(candidate, report, is_outdated)
            finally:
                self._services.isolation.clear(model, [key])
                self.failures += key not in self._ledger.validated

    def _judge(self, candidate: Candidate, report: Report, is_outdated: Callable[[], bool]) -> None:
        version, key = candidate.version, candidate.fingerprint
        try:
            folder = self._stage(candidate, report)
            if is_outdated():
                return
            report("validating")
            unverified = self._validate(candidate, folder)
        except (Incomplete, VersionRejected):
            raise
        except (TritonDied, TritonTimeout) as exc:
            deaths = self._ledger.count_death(key)
            if deaths >= MAX_ATTEMPTS:
                self._verdicts.reject(version, key, f"{exc}, {MAX_ATTEMPTS} times during its trial")
            elif isinstance(exc, TritonTimeout):  # the other versions need not wait for it again
                pause_s = pause_after(deaths, poll_s=self._services.settings.poll_s)
                self._verdicts.postpone(version, key, exc, pause_s=pause_s)
            else:
                raise
        except Exception as exc:  # noqa: BLE001 - a defect must not keep out the other versions
            if is_transient(exc):
                self._verdicts.postpone_repeated(version, key, exc)
            else:
                self._verdicts.reject_for_defect(version, key, exc)
        else:
            self._ledger.set_validated(key, folder, unverified=unverified)
            log.info("%s: version %d is valid%s", candidate.model, version, f", {unverified}" if unverified else "")

    def _stage(self, candidate: Candidate, report: Report) -> Path:
        storage, mirror = self._services.storage, self._services.mirror
        folder = mirror.staging_folder(candidate.model, candidate.version, candidate.fingerprint)
        total = sum(item.size for item in candidate.files.values())
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._deployment.metrics.downloaded.inc(size)
            report(f"downloading, {done / 1e6:.1f} of {total / 1e6:.1f} MB")

        report("downloading")
        stage(storage, candidate, folder, reserve=partial(mirror.space.reserve, folder), count=count)
        return folder

    def _validate(self, candidate: Candidate, folder: Path) -> str | None:
        """Validate a staged candidate under a name of its own; returns why no output verified it, if so."""
        with self._deployment.candidate(folder) as name:
            self._deployment.check_labels(
                candidate.version, folder
            )  # only now it is sure that the config has all tensors
            limit_s = self._services.settings.load_timeout_s
            if not configs.builds_engines(read_config(folder, candidate.version)):
                limit_s = min(_VALIDATION_S, limit_s)
            golden = find_golden(folder, candidate.version)
            return validate(self._services.triton, name, golden=golden, limit_s=limit_s)
