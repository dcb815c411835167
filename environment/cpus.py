"""How many CPUs this process may use: in a container the container's limit, not the cores of the node."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_limit(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float:
    """Return the smallest of the cores that the scheduler allows and the quotas of the cgroups around this process.

    Args:
        cgroups: Where cgroups are mounted, of version 1 or 2.
        membership: `/proc/self/cgroup`.
    """
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min([allowed, *_iterate_quotas(cgroups, membership)])


def _iterate_quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _iterate_parents(cgroups, path):
                yield from _read_quota(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                for folder in _iterate_parents(cgroups / mount, path):
                    yield from _read_quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _iterate_parents(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup and those around it, as far as this container sees them."""
    folder = mount / path.strip("/")
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _read_quota(*files: Path) -> Iterator[float]:
    """CPUs, where there is a quota: microseconds of all threads in a period of microseconds."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        if int(quota) > 0:  # version 1 writes -1 for none
            yield int(quota) / int(period)
    except (OSError, ValueError):  # no such cgroup; version 2 writes max for none
        return
