"""The CPUs that this process may use, in a container by its limit, not the cores of the node; and what they can."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")
# What decides which runtime and precision is quick, by the kernel's names.
_SETS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bf16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "bf16": "bf16",
}
_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # the last one: Arm


def cpu_limit(cgroups: Path | None = None, membership: Path | None = None) -> float:
    """Return the CPU limit of this process: the smallest of its CPU affinity and the quotas of its cgroups.

    Args:
        cgroups: Mount point of the cgroups, version 1 or 2; by default `CGROUPS`.
        membership: Cgroups of the process; by default `MEMBERSHIP`.
    """
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min([allowed, *_iterate_quotas(cgroups or CGROUPS, membership or MEMBERSHIP)])


def whole_cpus() -> int:
    """Return `cpu_limit` rounded up, as Kubernetes passes `limits.cpu` on in a variable; at least 1."""
    return math.ceil(cpu_limit())


def has_bf16(cpuinfo: Path | None = None) -> bool:
    """Return whether the CPU computes bf16 in hardware; True where that cannot be found out.

    Without it OpenVINO takes four times as long in bf16 as in FP32 (YOLOv8n on AVX-512 alone).

    Args:
        cpuinfo: what the kernel says of the CPU; by default `CPUINFO`.
    """
    try:
        text = (cpuinfo or CPUINFO).read_text()
    except OSError:
        return True  # not Linux
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return not lines or any(_BF16 & set(line.split()) for line in lines)


def cpu_name() -> str:
    """The CPU's model."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Those of the CPU that inference depends on; empty where the kernel does not say."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for flag, name in _SETS.items() if flag in flags]


def machine() -> str:
    """Cores that this process may use, CPU and its instruction sets, such as `2 cores, AMD EPYC (AVX2)`."""
    sets = ", ".join(instruction_sets())
    return f"{len(os.sched_getaffinity(0))} cores, {cpu_name()}{f' ({sets})' if sets else ''}"


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
    """Yield the cgroup and its parents, as far as this container sees them."""
    folder = mount / path.strip("/")
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _read_quota(*files: Path) -> Iterator[float]:
    """Yield the quota in CPUs, if there is one: microseconds of all threads in a period of microseconds."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        if int(quota) > 0:  # version 1 writes -1 for no quota
            yield int(quota) / int(period)
    except (OSError, ValueError):  # missing cgroup; version 2 writes max for no quota
        return
