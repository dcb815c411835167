"""Stops the stack if a part cannot be kept alive, shows its last words, and ends what a dead part left behind.

An event listener of stack/supervisord.conf: standard output is for supervisor's protocol, standard error for the user.
"""

import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from supervisor import childutils

from environment.project import shown
from stack.logs import log_of, read_last_lines

GIVEN_UP = "given-up"
_ORPHAN_S = 10  # without a Triton its stubs end within one, except for those that wait for a lock that it held
_KILLED_S = 5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # shm_open(3)
_REGION = re.compile(r"triton_\w+_shm_region_[\w-]+")  # an argument of a stub


def main() -> None:
    """Handle events until supervisor ends."""
    if caller := os.environ.get("CALLER_FOLDER"):
        os.chdir(caller)  # paths are shown as the user would type them
    given_up = Path(os.environ["STATE_DIR"]) / GIVEN_UP
    logs = Path(os.environ["LOG_FOLDER"]) if os.environ.get("LOG_FOLDER") else None
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        handle(headers["eventname"], childutils.get_headers(payload), given_up=given_up, logs=logs)
        childutils.listener.ok(sys.stdout)
        sweep(find_orphans(psutil.Process(os.getppid())), patience_s=_ORPHAN_S)


def handle(name: str, event: Mapping[str, str], *, given_up: Path, logs: Path | None) -> None:
    """Handle the end of a part.

    Args:
        name: PROCESS_STATE_FATAL, _EXITED or _BACKOFF; see supervisord.conf.
        event: `processname`, and what else supervisor says.
        given_up: file to write the reason to if the stack must stop.
        logs: folder of the logs; None if they are in the terminal.
    """
    part = event["processname"]
    if part == "announce":
        return
    if name == "PROCESS_STATE_FATAL":  # its last words were shown at its first quick death
        stop(f"{part} died again and again within seconds of its start", given_up)
    elif name == "PROCESS_STATE_EXITED" and event["expected"] == "1":
        if logs is not None:
            show_last_words(part, logs, what=f"{part} ended")
        # On a busy machine that may be no quick death, and would be tried again for ever.
        stop(f"{part} cannot run as it is set up", given_up)
    elif logs is not None and event.get("tries", "1") == "1":
        show_last_words(part, logs, what=f"{part} ended unexpectedly and is started again")


def stop(reason: str, given_up: Path) -> None:
    """Leave the reason to the supervisor, and stop it."""
    given_up.write_text(reason)
    os.kill(os.getppid(), signal.SIGTERM)


def show_last_words(part: str, folder: Path, *, what: str) -> None:
    """Print the end of a part's log."""
    log = log_of(part, folder)
    words = [f"{what}; the last lines of {shown(log)}:", *read_last_lines(log)]
    print(*words, sep="\n  ", file=sys.stderr, flush=True)


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
    psutil.wait_procs(left, timeout=_KILLED_S)  # their parent is this process: a child without a wait stays a zombie
    for region in regions:
        region.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
