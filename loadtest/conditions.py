"""Commit and machine of a measurement, for the files that it writes."""

import os
import platform
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
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


def commit() -> str:
    """The commit of the checkout, with `-dirty` where it was changed; empty where that is unknown."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return described.stdout.strip()


def cpu_name() -> str:
    """The CPU's model."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Those of the CPU that inference depends on; empty where the kernel does not say."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for flag, name in _SETS.items() if flag in flags]


def machine() -> str:
    """Cores that this process may use, CPU and its instruction sets, such as `2 cores, AMD EPYC (AVX2)`."""
    sets = ", ".join(instruction_sets())
    return f"{len(os.sched_getaffinity(0))} cores, {cpu_name()}{f' ({sets})' if sets else ''}"
