"""Chooses among the profiles that the setting leaves open (`registry/profiles.py`), by what is measured on this CPU.

A version begins in the first of them, which gets the usual trial. Once no client has sent a request for a while, each
other profile is loaded under the candidate's name, must give the golden outputs too, and is timed in turn with what
serves. One that is clearly faster takes its place. What was measured stays in the mirror.
"""

import hashlib
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from environment.cpus import machine
from predictor.synchroniser.deployment import Deployment
from predictor.synchroniser.errors import TritonError
from predictor.synchroniser.services import Services
from predictor.synchroniser.staging import Candidate, find_golden, read_config, stage
from predictor.synchroniser.status import Profiles
from predictor.synchroniser.validation import size_of_images, validate
from registry.config import Policy
from registry.errors import Incomplete, TransientError, VersionRejected
from registry.golden import Arrays, read_golden, split_golden
from registry.judgement.version import judge_changes
from registry.layout import GOLDEN, MANIFEST, TEXT_BYTES
from registry.profiles import FAST, INT8, MOST_CHANGE, OPENVINO, alternatives
from registry.storage.reading import read

log = logging.getLogger("synchroniser")

_QUIET_S = 5.0  # without a request: measuring takes the CPUs for a second or two
_CLEARLY = 0.9  # of the time of what serves: less is not worth a swap, and may be noise
_PAIRS = 15
_FEWEST_PAIRS = 5
_MEASURE_S = 1.5  # for at least the fewest pairs
_LIMIT_S = 120.0  # of all requests that verify a profile
_BY_THE_RUNTIME = "model.py"  # of a backend in Python: Triton is the embedded one
_INTERRUPTED = "this process ended while it was measured"


class ProfileChoice:
    """The choice for the versions of one model.

    Attributes:
        pending: what is to be measured next, and the version that serves meanwhile; None where nothing is.
    """

    def __init__(self, model: str, services: Services, deployment: Deployment) -> None:
        """Read what was measured before."""
        self._model, self._services, self._deployment = model, services, deployment
        self._open = alternatives(services.settings.profile)
        self._records: dict[str, dict[str, Any]] = services.mirror.records.read_choices(model) if self._is_open else {}
        self._later: set[tuple[str, str]] = set()  # could not be measured now: the next process tries again
        self.pending: tuple[Candidate, Candidate] | None = None

    @property
    def is_due(self) -> bool:
        """Whether to measure now."""
        services = self._services
        is_quiet = services.status.ready and services.traffic.quiet_s >= _QUIET_S
        return self.pending is not None and is_quiet and not services.measuring.locked()

    def apply(
        self, candidates: Mapping[int, Candidate], policy: Policy, rejected: Mapping[str, Any]
    ) -> Mapping[int, Candidate]:
        """Return the candidates in the profiles that were chosen for them.

        Args:
            candidates: in the first profile.
            policy: where several versions serve together they have one config, so nothing is chosen.
            rejected: fingerprints that cannot serve: of a profile that was chosen, it is given up.
        """
        if not self._is_open or len(policy.match(candidates)) > 1:
            return candidates
        self._forget(candidates)
        return {version: self._apply(candidate, rejected) for version, candidate in candidates.items()}

    def look(self, candidates: Mapping[int, Candidate], serving: Mapping[int, str]) -> None:
        """Find what is to be measured next: a profile of the one version that serves.

        Args:
            candidates: of `apply`.
            serving: fingerprints of the versions that serve.
        """
        self.pending = None
        if not self._is_open or len(serving) != 1:
            return
        served = candidates.get(next(iter(serving)))
        if served is None or served.fingerprint not in serving.values() or GOLDEN not in served.files:
            return
        known = self._records.get(self._key(served), {}).get("measured", {})
        for profile in self._open:
            is_new = profile not in known and (self._key(served), profile) not in self._later
            if profile != served.profile and is_new and _has(served, profile):
                self.pending = replace(served, profile=profile), served
                return

    def measure(self) -> Candidate | None:
        """Measure the pending profile; returns it where it is to serve, staged and verified in `staging_folder`."""
        if self.pending is None or not self._services.measuring.acquire(blocking=False):
            return None
        (candidate, served), self.pending = self.pending, None
        key = self._key(served)
        try:
            self._record(key, served, {candidate.profile: _INTERRUPTED})
            share = self._measure(candidate, served)
        except VersionRejected as exc:
            log.info("%s: version %d does not run in %s: %s", self._model, served.version, candidate.profile, exc)
            self._record(key, served, {candidate.profile: str(exc)})
            return None
        except (Incomplete, TransientError, TritonError, OSError) as exc:
            log.info("%s: %s cannot be measured now: %s", self._model, candidate.profile, exc)
            self._later.add((key, candidate.profile))
            self._record(key, served, {candidate.profile: None})
            return None
        finally:
            self._services.measuring.release()
        is_faster = share < _CLEARLY
        log.info(
            "%s: version %d takes %.2f of the time in %s that it takes in %s%s",
            self._model, served.version, share, candidate.profile, served.profile, ", and changes" * is_faster,
        )  # fmt: skip
        before = self._records[key]["measured"].get(served.profile, 1.0)
        measured = {served.profile: before, candidate.profile: round(share * before, 3)}
        self._record(key, candidate if is_faster else served, measured)
        return candidate if is_faster else None

    def describe(self, candidate: Candidate) -> Profiles | None:
        """Return the profile of a candidate, and what was measured; None where the setting leaves no choice."""
        if not self._is_open:
            return None
        return Profiles(candidate.profile, dict(self._records.get(self._key(candidate), {}).get("measured", {})))

    @property
    def _is_open(self) -> bool:
        return len(self._open) > 1

    def _key(self, candidate: Candidate) -> str:
        """The version and the CPU, whatever the profile."""
        first = replace(candidate, profile=self._open[0])
        return hashlib.sha256(f"{first.fingerprint}\0{machine()}".encode()).hexdigest()

    def _apply(self, candidate: Candidate, rejected: Mapping[str, Any]) -> Candidate:
        record = self._records.get(self._key(candidate), {})
        profile = record.get("profile")
        if profile not in self._open or profile == candidate.profile:
            return candidate
        chosen = replace(candidate, profile=profile)
        if (reason := rejected.get(chosen.fingerprint)) is None:
            return chosen
        self._record(self._key(candidate), candidate, {profile: str(getattr(reason, "reason", reason))})
        return candidate

    def _record(self, key: str, serves: Candidate, measured: Mapping[str, Any]) -> None:
        """Write what was measured; None removes an entry."""
        before = self._records.get(key, {}).get("measured", {})
        merged = {name: value for name, value in {**before, **measured}.items() if value is not None}
        self._records[key] = {"version": serves.version, "profile": serves.profile, "measured": merged}
        self._services.mirror.records.write_choices(self._model, self._records)

    def _forget(self, candidates: Mapping[int, Candidate]) -> None:
        """Forget versions that the repository no longer has."""
        gone = [key for key, record in self._records.items() if record.get("version") not in candidates]
        for key in gone:
            del self._records[key]
        if gone:
            self._services.mirror.records.write_choices(self._model, self._records)

    def _measure(self, candidate: Candidate, served: Candidate) -> float:
        """Stage, load and verify a profile; returns its time as a share of that of what serves.

        Raises:
            VersionRejected: it does not run, gives other outputs, or is not precise enough.
            Incomplete, TransientError, TritonError, OSError: it cannot be measured now.
        """
        services, current = self._services, self._deployment.current
        self._check_precise(candidate)
        triton, mirror, version = services.triton, services.mirror, candidate.version
        if candidate.profile == OPENVINO and triton.config(self._model).runtime != _BY_THE_RUNTIME:
            raise VersionRejected("this Triton is not the embedded one, whose OpenVINO alone takes any batch")
        folder = mirror.staging_folder(self._model, version, candidate.fingerprint)
        held = current.folder / str(version)
        stage(
            services.storage, candidate, folder, reserve=partial(mirror.space.reserve, folder),
            count=self._deployment.metrics.downloaded.inc, held=held,
        )  # fmt: skip
        if _runs_in(folder, version) == _runs_in(current.folder, version):
            raise VersionRejected(f"it runs as {served.profile} does")
        golden = find_golden(folder, version)
        with services.isolation.trial(), self._deployment.candidate(folder) as name:
            validate(triton, name, golden=golden, limit_s=min(_LIMIT_S, services.settings.load_timeout_s))
            if golden is None:
                raise VersionRejected(f"it has no {GOLDEN} to measure with")
            inputs = _compose_inputs(read_golden(golden), triton.config(self._model))
            return compare(
                partial(triton.infer, name, inputs), partial(triton.infer, self._model, inputs, str(version))
            )

    def _check_precise(self, candidate: Candidate) -> None:
        if candidate.profile != INT8:
            return
        manifest = candidate.files.get(MANIFEST)
        text = b"" if manifest is None else read(self._services.storage, manifest, limit=TEXT_BYTES)
        change = judge_changes(text).get(INT8) if text else None
        if change is None or change < -MOST_CHANGE:
            got = "an unknown change" if change is None else f"a change of {change:+.4f}"
            raise VersionRejected(f"got {got} of its accuracy by {MANIFEST}, expected at least -{MOST_CHANGE}")


def compare(candidate: Callable[[], Any], served: Callable[[], Any]) -> float:
    """Time two calls in turn; returns the median of the first one's seconds as a share of the second one's.

    It is the median over pairs: what else the machine does meets both calls of a pair, or few pairs.
    """
    for call in (candidate, served) * 2:
        call()  # which allocates
    shares: list[float] = []
    began = time.perf_counter()
    while len(shares) < _FEWEST_PAIRS or (len(shares) < _PAIRS and time.perf_counter() - began < _MEASURE_S):
        shares.append(_time(candidate) / _time(served))
    return statistics.median(shares)


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _has(candidate: Candidate, profile: str) -> bool:
    """Whether a version has a profile of its own, or needs none."""
    return profile not in {FAST, INT8} or f"{profile}.pbtxt" in candidate.files


def _runs_in(folder: Path, version: int) -> tuple[str, ...]:
    """The backend, file and parameters that a staged version runs with."""
    config = read_config(folder, version)
    parameters = [
        f"{key}={config.parameters[key].string_value}" for key in sorted(config.parameters) if key != "profile"
    ]
    return config.backend, config.default_model_filename, *parameters


def _compose_inputs(arrays: Arrays, config: Any) -> Arrays:
    """The first golden item, with images as large as those that the model was made for: the golden ones are small."""
    inputs, _ = split_golden(arrays, config)
    size = size_of_images(config)
    composed = {}
    for tensor in config.input:
        if (array := inputs.get(tensor.name)) is None:
            continue
        first = array[:1] if config.max_batch_size else array
        shape = list(first.shape)
        if size is not None and list(tensor.dims) == [-1, -1, 3]:
            shape[-3:-1] = [size, size]
        composed[tensor.name] = np.ascontiguousarray(np.resize(first, shape))
    return composed
