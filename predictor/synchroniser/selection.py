"""Which versions should serve."""

from collections.abc import Collection, Mapping

from registry.config import Policy


def choose(
    available: Mapping[int, str],
    policy: Policy,
    *,
    current: Mapping[int, str],
    unfit: Collection[str],
    apart: Mapping[str, str],
) -> dict[int, str]:
    """Fingerprints of the versions that should serve, by version.

    A version that serves and whose files have changed into something unfit stays as it was taken. Where the policy
    finds nothing, what serves goes on serving.

    Args:
        available: every version in the repository.
        policy: of the model.
        current: what serves.
        unfit: fingerprints that are refused, or not complete yet.
        apart: fingerprints that cannot serve beside the newest version's, by that one.
    """
    usable = {version: value for version, value in available.items() if value not in unfit}
    usable |= {version: value for version, value in current.items() if version in available and version not in usable}
    wanted = policy.select(usable)
    while wanted:
        newest = usable[wanted[-1]]
        misfits = [version for version in wanted[:-1] if apart.get(usable[version]) == newest]
        if not misfits:
            return {version: usable[version] for version in wanted}
        for version in misfits:
            del usable[version]
        wanted = policy.select(usable)
    return dict(current)
