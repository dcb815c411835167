"""Which versions should serve."""

from collections.abc import Collection, Mapping

from registry.config import Policy


def select_versions(
    available: Mapping[int, str],
    policy: Policy,
    *,
    serving: Mapping[int, str],
    unusable: Collection[str],
    incompatible: Mapping[str, str],
) -> dict[int, str]:
    """Select the versions that should serve.

    A version that serves keeps serving unchanged while its new files are unusable. Where the policy selects nothing,
    the versions that serve stay.

    Args:
        available: fingerprints of all versions in the repository, by version.
        policy: version policy of the model.
        serving: fingerprints of the versions that serve, by version.
        unusable: fingerprints of versions that are rejected, incomplete or postponed.
        incompatible: fingerprints of versions that cannot serve beside the newest one, with the newest one's.

    Returns:
        Fingerprints by version.
    """
    usable = {version: key for version, key in available.items() if key not in unusable}
    usable |= {version: key for version, key in serving.items() if version in available and version not in usable}
    selected = policy.select(usable)
    while selected:
        newest = usable[selected[-1]]
        misfits = [version for version in selected[:-1] if incompatible.get(usable[version]) == newest]
        if not misfits:
            return {version: usable[version] for version in selected}
        for version in misfits:
            del usable[version]
        selected = policy.select(usable)
    return dict(serving)
