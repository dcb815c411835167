"""Chooses among the profiles that the setting leaves open (`registry/profiles.py`), by what is measured on this CPU.

A version begins in the first of them, which gets the usual trial. Once no client has sent a request for a while, each
other profile is loaded under the candidate's name, must give the golden outputs too, and is timed in turn with what
serves. One that is clearly faster takes its place. What was measured stays in the mirror.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from environment.cpus import machine
from predictor.synchroniser.comparison import compare
from predictor.synchroniser.deployment import Deployment
from predictor.synchroniser.errors import is_transient
from predictor.synchroniser.ledger import MAX_ATTEMPTS
from predictor.synchroniser.retries import pause_after
from predictor.synchroniser.services import Services
from predictor.synchroniser.staging import Candidate, find_golden, read_config, stage
from predictor.synchroniser.status import Profiles
from predictor.synchroniser.validation import validate
from registry.config import Policy
from registry.errors import Unsigned, VersionRejected
from registry.judgement.version import judge_changes
from registry.layout import GOLDEN, MANIFEST, TEXT_BYTES
from registry.profiles import FAST, INT8, MOST_CHANGE, OPENVINO, alternatives
from registry.storage.reading import read

log = logging.getLogger("synchroniser")

_QUIET_S = 5.0  # without a request: measuring takes the CPUs for some seconds
_CLEARLY = 0.9  # of the time of what serves: less is not worth a swap, and may be noise
_LIMIT_S = 120.0  # of all requests that verify a profile
_BY_THE_RUNTIME = "model.py"  # of a backend in Python: Triton is the embedded one

_machine = cache(machine)


@dataclass
class _Record:
    """What is known of one version on one CPU.

    Attributes:
        version: its number.
        profile: that it runs in.
        measured: as in `Profiles`.
        attempts: that ended without a result, by profile: this process may have ended meanwhile.
    """

    version: int
    profile: str
    measured: dict[str, float | str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)


class ProfileChoice:
    """The choice for the versions of one model.

    Attributes:
        pending: what is to be measured next, and what serves meanwhile; None where nothing is.
        changed: fingerprints of versions that are to serve in another profile than they did.
    """

    def __init__(self, model: str, services: Services, deployment: Deployment) -> None:
        """Read what was measured before."""
        self._model, self._services, self._deployment = model, services, deployment
        self._open = alternatives(services.settings.profile)
        if not services.settings.measures:
            self._open = self._open[:1]
        self._records: dict[str, _Record] = {}
        if self._is_open:
            self._records = _read_records(services.mirror.records.read_choices(model))
        self.pending: tuple[Candidate, Candidate] | None = None
        self._not_before = 0.0
        self._serves_alone = False
        self.changed: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether to measure now."""
        services = self._services
        can = services.status.ready and services.triton.up.is_set() and self._deployment.is_loaded
        is_quiet = services.traffic.quiet_s >= _QUIET_S and services.clock() >= self._not_before
        return self.pending is not None and can and is_quiet and not services.measuring.locked()

    def apply(
        self, candidates: Mapping[int, Candidate], policy: Policy, rejected: Mapping[str, str]
    ) -> Mapping[int, Candidate]:
        """Return the candidates in the profiles that were chosen for them.

        Args:
            candidates: in the first profile.
            policy: where several versions serve together they have one config, so nothing is chosen.
            rejected: fingerprints that cannot serve, and why: of a profile that was chosen, it is given up.
        """
        self._serves_alone = len(policy.match(candidates)) == 1
        if not self._is_open or not self._serves_alone:
            return candidates
        gone = [key for key, record in self._records.items() if record.version not in candidates]
        for key in gone:
            del self._records[key]
        if gone:
            self._write()
        return {version: self._apply(candidate, rejected) for version, candidate in candidates.items()}

    def look(self, candidates: Mapping[int, Candidate], serving: Mapping[int, str]) -> None:
        """Find what is to be measured next: a profile of the one version that serves.

        Args:
            candidates: of `apply`.
            serving: fingerprints of the versions that serve.
        """
        served = candidates.get(next(iter(serving), 0))
        if not self._is_open or not self._serves_alone or served is None or len(serving) != 1:
            return
        if served.fingerprint not in serving.values() or GOLDEN not in served.files:
            return
        known = self._record_of(served)
        for profile in self._open:
            if profile != served.profile and profile not in known.measured and _has(served, profile):
                self.pending = replace(served, profile=profile), served
                return

    def measure(self) -> Candidate | None:
        """Measure what is pending; returns it where it is to serve, staged and verified in its staging folder."""
        pending, self.pending = self.pending, None
        if pending is None or not self._services.measuring.acquire(blocking=False):
            return None
        try:
            return self._measure(*pending)
        finally:
            self._services.measuring.release()

    def describe(self, candidate: Candidate) -> Profiles | None:
        """Return the profile of a candidate, and what was measured; None where the setting leaves no choice."""
        if not self._is_open:
            return None
        return Profiles(candidate.profile, dict(self._record_of(candidate).measured))

    def clear(self) -> None:
        """Forget all versions: the model was removed."""
        if self._records:
            self._records.clear()
            self._write()
        self.pending = None
        self.changed.clear()

    @property
    def _is_open(self) -> bool:
        return len(self._open) > 1

    def _record_of(self, candidate: Candidate) -> _Record:
        """The record of a version on this CPU, whatever its profile; a new one is not kept before it is written."""
        return self._records.get(self._key(candidate)) or _Record(candidate.version, candidate.profile)

    def _key(self, candidate: Candidate) -> str:
        first = replace(candidate, profile=self._open[0])
        return hashlib.sha256(f"{first.fingerprint}\0{_machine()}".encode()).hexdigest()

    def _apply(self, candidate: Candidate, rejected: Mapping[str, str]) -> Candidate:
        record = self._record_of(candidate)
        if record.profile not in self._open or record.profile == candidate.profile:
            return candidate
        chosen = replace(candidate, profile=record.profile)
        if (reason := rejected.get(chosen.fingerprint)) is None:
            return chosen
        self._settle(replace(record, profile=candidate.profile), candidate, chosen.profile, reason)
        return candidate

    def _measure(self, candidate: Candidate, served: Candidate) -> Candidate | None:
        """Measure a profile, and write the result; returns it where it is to serve."""
        record, profile = self._record_of(served), candidate.profile
        attempts = record.attempts.get(profile, 0) + 1
        if attempts > MAX_ATTEMPTS:
            self._settle(record, served, profile, f"{MAX_ATTEMPTS} attempts to measure it ended without a result")
            return None
        # Before the attempt, which may end this process, or Triton.
        record.attempts[profile] = attempts
        self._records[self._key(served)] = record
        self._write()
        try:
            share = self._try(candidate, served)
        except Unsigned as exc:  # no longer signed in the repository: that says nothing about the profile
            log.info("%s: %s cannot be measured now: %s", self._model, profile, exc)
            del record.attempts[profile]
            self._write()
            self._not_before = self._services.clock() + pause_after(attempts, poll_s=self._services.settings.poll_s)
            return None
        except VersionRejected as exc:
            log.info("%s: version %d does not run in %s: %s", self._model, served.version, profile, exc)
            self._settle(record, served, profile, str(exc))
            return None
        except Exception as exc:
            level = logging.INFO if is_transient(exc) else logging.ERROR
            log.log(
                level, "%s: %s cannot be measured now: %s", self._model, profile, exc, exc_info=level > logging.INFO
            )
            self._not_before = self._services.clock() + pause_after(attempts, poll_s=self._services.settings.poll_s)
            return None
        is_faster = share < _CLEARLY
        log.info(
            "%s: version %d takes %.2f of the time in %s that it takes in %s%s",
            self._model, served.version, share, profile, served.profile, ", and changes" * is_faster,
        )  # fmt: skip
        before = record.measured.setdefault(served.profile, 1.0)
        if is_faster:
            record = replace(record, profile=profile)
            self.changed.add(candidate.fingerprint)
        self._settle(record, served, profile, round(share * float(before), 3))
        return candidate if is_faster else None

    def _settle(self, record: _Record, version: Candidate, profile: str, result: float | str) -> None:
        """Write the result of a profile."""
        record.measured[profile] = result
        record.attempts.pop(profile, None)
        self._records[self._key(version)] = record
        self._write()

    def _write(self) -> None:
        content = {key: vars(record) for key, record in self._records.items()}
        self._services.mirror.records.write_choices(self._model, content)

    def _try(self, candidate: Candidate, served: Candidate) -> float:
        """Stage, load and verify a profile; returns its time as a share of that of what serves.

        Raises:
            VersionRejected: it does not run, gives other outputs, or is not precise enough; Unsigned, which is one.
            Incomplete, TransientError, TritonError, OSError: it cannot be measured now.
        """
        services, current = self._services, self._deployment.current
        self._check_precise(candidate)
        triton, mirror, version = services.triton, services.mirror, candidate.version
        if candidate.profile == OPENVINO and triton.config(self._model).runtime != _BY_THE_RUNTIME:
            raise VersionRejected("this Triton is not the embedded one, whose OpenVINO alone takes any batch")
        folder = mirror.staging_folder(self._model, version, candidate.fingerprint)
        stage(
            services.storage, candidate, folder, reserve=partial(mirror.space.reserve, folder),
            count=self._deployment.metrics.downloaded.inc, held=current.folder / str(version),
        )  # fmt: skip
        if _runs_as(folder, version) == _runs_as(current.folder, version):
            raise VersionRejected(f"it runs as {served.profile} does")
        golden = find_golden(folder, version)
        if golden is None:
            raise VersionRejected(f"it has no {GOLDEN} to measure with")
        with services.isolation.trial(), self._deployment.candidate(folder) as name:
            self._deployment.check_labels(version, folder)
            validate(triton, name, golden=golden, limit_s=min(_LIMIT_S, services.settings.load_timeout_s))
            return compare(triton, name, self._model, golden, stopped=services.stopped)

    def _check_precise(self, candidate: Candidate) -> None:
        if candidate.profile != INT8:
            return
        manifest = candidate.files.get(MANIFEST)
        text = b"" if manifest is None else read(self._services.storage, manifest, limit=TEXT_BYTES)
        change = judge_changes(text).get(INT8) if text else None
        if change is None or change < -MOST_CHANGE:
            got = "an unknown change" if change is None else f"a change of {change:+.4f}"
            raise VersionRejected(f"got {got} of its accuracy by {MANIFEST}, expected at least -{MOST_CHANGE}")


def _read_records(content: Mapping[str, Any]) -> dict[str, _Record]:
    """The records of a file; those that are not as this program writes them are measured again."""
    records = {}
    for key, value in content.items():
        try:
            record = _Record(**value)
        except TypeError:
            continue
        if isinstance(record.measured, dict) and isinstance(record.attempts, dict):
            records[key] = record
    return records


def _has(candidate: Candidate, profile: str) -> bool:
    """Whether a version has a profile of its own, or needs none."""
    return profile not in {FAST, INT8} or f"{profile}.pbtxt" in candidate.files


def _runs_as(folder: Path, version: int) -> bytes:
    """The config of a staged version without the name of its profile, and the versions that it serves with."""
    config = ModelConfig.FromString(read_config(folder, version).SerializeToString())
    if "profile" in config.parameters:
        del config.parameters["profile"]
    config.ClearField("version_policy")
    text: bytes = config.SerializeToString(deterministic=True)
    return text
