"""What dead parts of the stack leave behind: Triton's stubs, and their shared memory."""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

_KILLED_S = 5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # shm_open(3)
_REGION = re.compile(r"triton_\w+_shm_region_[\w-]+")  # an argument of a stub


def find_orphans(supervisor: psutil.Process) -> list[psutil.Process]:
    """What dead parts left: the kernel gave it to the supervisor, but it leads no group of its own, as parts do."""
    orphans = []
    for process in supervisor.children():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) not in {process.pid, os.getpgid(supervisor.pid)}:
                orphans.append(process)
    return orphans


def sweep(processes: list[psutil.Process], *, patience_s: float) -> None:
    """Wait until processes have ended, and kill what has not; a killed stub of Triton's leaves its shared memory."""
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    regions = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            regions += [_SHARED_MEMORY / word for word in process.cmdline() if _REGION.fullmatch(word)]
            process.kill()
    psutil.wait_procs(left, timeout=_KILLED_S)  # at the end we are their parent: what nobody waits for stays a zombie
    for region in regions:
        region.unlink(missing_ok=True)
