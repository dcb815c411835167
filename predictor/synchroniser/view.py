"""The status of a model in `/status`: a pure function of its ledger and its state."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from predictor.synchroniser.ledger import VersionLedger
from predictor.synchroniser.status import ModelStatus, Profiles, VersionStatus
from registry.config import MAX_TOGETHER, Policy


@dataclass(frozen=True)
class ModelState:
    """The state of a model beside its ledger.

    Attributes:
        fingerprints: of the versions in the last listing, by version.
        serving: fingerprints of the versions that Triton has loaded, by version.
        policy: version policy.
        error: last failure.
        in_progress: what is being done with a version.
        profiles: that versions run in.
        is_listed: whether the repository has been listed.
        blocked: listed versions that cannot be checked, by the reason.
        may_change: whether the model may begin to serve without a change in the repository.
        has_defect: whether the last reconciliation ended in a defect of this program.
    """

    fingerprints: Mapping[int, str] = field(default_factory=dict)
    serving: Mapping[int, str] = field(default_factory=dict)
    policy: str = ""
    error: str | None = None
    in_progress: Mapping[int, str] = field(default_factory=dict)
    profiles: Mapping[int, Profiles | None] = field(default_factory=dict)
    is_listed: bool = True
    blocked: Mapping[int, str] = field(default_factory=dict)
    may_change: bool = False
    has_defect: bool = False


def view_model(ledger: VersionLedger, state: ModelState) -> ModelStatus:
    """Return the status of a model: `serving`; `loading` where it may begin to; otherwise `refused`."""
    versions = {
        version: view_version(version, ledger, state) for version in {*state.fingerprints, *state.serving}
    } | {
        version: VersionStatus("refused", reason)
        for version, reason in state.blocked.items()
        if version not in state.serving
    }  # fmt: skip
    states = {version.state for version in versions.values()}
    may_serve = (state.may_change or states & {"incomplete", "staged"}) and not state.has_defect
    return ModelStatus(
        policy=state.policy,
        serving=tuple(str(version) for version in sorted(state.serving)),
        error=state.error,
        versions={str(version): versions[version] for version in sorted(versions)},
        state="serving" if "serving" in states else "loading" if may_serve else "refused",
    )


def view_version(version: int, ledger: VersionLedger, state: ModelState) -> VersionStatus:
    """Return the status of a version that is listed or serves."""
    key = state.fingerprints.get(version, "")
    if version in state.serving:
        return _view_serving(version, ledger, state)
    if (reason := ledger.rejected.get(key) or ledger.unsigned.get(key)) is not None:
        return VersionStatus("refused", reason)
    if (reason := ledger.incomplete.get(key)) is not None:
        return VersionStatus("incomplete", reason)
    if version in state.in_progress:
        return VersionStatus("staged", state.in_progress[version])
    reason = "its labels or tensors differ from those of the newer version" if key in ledger.incompatible else None
    return VersionStatus("available", ledger.postponement(key) or reason)


def _view_serving(version: int, ledger: VersionLedger, state: ModelState) -> VersionStatus:
    key, served = state.fingerprints.get(version, ""), state.serving[version]
    reason = ledger.unverified.get(served)
    if not key and state.is_listed:
        reason = "removed from the repository; serves until another version is valid"
    elif key and key != served:
        rejected = ledger.rejected.get(key) or ledger.unsigned.get(key)
        pending = rejected or ledger.incomplete.get(key) or ledger.postponement(key) or "in progress"
        reason = f"changed in the repository, serves unchanged: {pending}"
    activation = ledger.activations.get(served)
    profile = state.profiles.get(version)
    if activation is None:
        return VersionStatus("serving", reason, profile=profile)
    return VersionStatus("serving", reason, activation.since, round(activation.seconds, 1), profile)


def explain_policy(policy: Policy, available: Collection[int]) -> str | None:
    """Return which versions of a policy cannot serve, and why; None where all can."""
    if missing := (policy.specific or frozenset()) - set(available):
        return f"the policy names version {join_numbers(missing)}, which the repository does not have"
    selected = len(available if policy.specific is None else policy.specific)
    if policy.specific is None:
        selected = min(policy.latest or selected, selected)
    return f"got {selected} versions, and the newest {MAX_TOGETHER} serve together" if selected > MAX_TOGETHER else None


def join_numbers(versions: Collection[int]) -> str:
    """Return versions as text, in ascending order."""
    return ", ".join(str(version) for version in sorted(versions))
