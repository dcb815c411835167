"""What `/status` shows of models and versions."""

from collections.abc import Collection, Mapping

from predictor.synchroniser.ledger import Memory
from predictor.synchroniser.status import VersionStatus, now
from registry.config import MAX_TOGETHER, Policy


def describe(  # noqa: PLR0913 - all that a state depends on
    version: int,
    *,
    key: str,
    serving: Mapping[int, str],
    memory: Memory,
    doing: Mapping[int, str],
    is_listed: bool,
    before: VersionStatus | None,
) -> VersionStatus:
    """Describe a version.

    Args:
        version: its number.
        key: its fingerprint in the repository; empty where it is not there.
        serving: fingerprints of those that serve.
        memory: of its model.
        doing: what is being done with a version.
        is_listed: whether the repository has been listed.
        before: what was shown of it until now.
    """
    postponed, judgement = memory.postponement(key), memory.judgement(key)
    if version in serving:
        reason = memory.unproven.get(serving[version])
        if not key and is_listed:
            reason = "gone from the repository; serves until another version is good"
        elif key and key != serving[version]:
            reason = f"changed in the repository, goes on as it was taken: {judgement or postponed or 'being taken'}"
        if before is not None and before.state == "serving":
            return VersionStatus("serving", reason, before.since, before.seconds_to_serve)
        return VersionStatus("serving", reason, now())
    if judgement is not None:
        return VersionStatus("refused" if key in memory.refused else "incomplete", judgement)
    if version in doing:
        return VersionStatus("staged", doing[version])
    reason = "its labels or tensors are not those of the newer version" if key in memory.apart else None
    return VersionStatus("available", postponed or reason)


def words_of(exc: Exception) -> str:
    """The text of an error, without paths of this machine."""
    if isinstance(exc, OSError):
        return (exc.strerror or str(exc)).lower()
    return str(exc) or type(exc).__name__


def pin_error(policy: Policy, available: Collection[int]) -> str | None:
    """What a policy names and cannot have; None where it has all of it."""
    missing = (policy.specific or frozenset()) - set(available)
    if not missing:
        named = policy.specific if policy.specific is not None else available
        most = min(policy.latest or len(named), len(named)) if policy.specific is None else len(named)
        return f"got {most} versions, and the newest {MAX_TOGETHER} serve together" if most > MAX_TOGETHER else None
    return f"the policy names version {join_numbers(missing)}, which the repository does not have"


def join_numbers(versions: Collection[int]) -> str:
    """Versions as text, in ascending order."""
    return ", ".join(str(version) for version in sorted(versions))
