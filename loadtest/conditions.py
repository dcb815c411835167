"""Commit and machine of a measurement, for the files that it writes."""

import platform
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


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
