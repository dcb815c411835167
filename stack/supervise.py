"""Runs the parts of the local stack under supervisor, until Ctrl-C or until one cannot be kept alive."""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from environment.project import ROOT
from stack import logs
from stack.parts import compose_environment, hide
from stack.settings import StackSettings
from stack.watch import GIVEN_UP, sweep

_OURS = 0o077  # whatever the parts write is for this user alone
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


def supervise(settings: StackSettings) -> str:
    """Run the parts until they are stopped; changes the folder and the environment of this process.

    Returns:
        Why a part could not be kept alive; empty after a stop that the user wanted.
    """
    os.umask(_OURS)
    keep(settings)
    if not settings.verbose:
        logs.begin(settings.log_folder)
    _adopt_descendants()
    os.environ |= {"CALLER_FOLDER": str(Path.cwd())} | logs.compose_logging(settings)
    with tempfile.TemporaryDirectory(prefix="nereid-") as state:
        os.environ |= compose_environment(settings, state)
        os.environ |= hide(os.environ)
        os.chdir(ROOT)
        arguments = ["-c", str(ROOT / "stack/supervisord.conf"), "-d", str(ROOT)]
        # Says once that root is meant; supervisor warns otherwise.
        _run_supervisor([*arguments, *(["-u", "root"] if os.geteuid() == 0 else [])])
        sweep(psutil.Process().children(recursive=True), patience_s=0)
        _go_to_end()
        given_up = Path(state) / GIVEN_UP
        return given_up.read_text() if given_up.exists() else ""


def keep(settings: StackSettings) -> None:
    """Close the project's folder of mirrors to other users, even one that exists; a folder of MIRROR stays as it is."""
    if settings.mirror is None and not settings.triton_url:
        settings.mirror_folder.mkdir(parents=True, exist_ok=True)
        settings.mirror_folder.chmod(0o700)


class _Supervisor(Supervisor):  # type: ignore[misc]  # it has no types
    """Starts the parts at once; supervisor's own loop waits a second for events before it starts any."""

    def runforever(self) -> None:
        """Run until the parts are stopped."""
        for group in sorted(self.process_groups.values()):
            group.transition()
        super().runforever()


def _run_supervisor(arguments: Sequence[str]) -> None:
    """Do what `supervisor.supervisord.main` does, SIGHUP included, which starts all parts again."""
    is_first = True
    while True:
        options = ServerOptions()
        options.realize(arguments)
        options.first, options.test = is_first, False
        with suppress(asyncore.ExitNow):
            _Supervisor(options).main()
        options.close_httpservers()
        options.close_logger()
        is_first = False
        if options.mood < SupervisorStates.RESTARTING:
            return


def _go_to_end() -> None:
    """Go to the end of a file that is standard output: supervisor has opened it once more, and has written to it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a terminal or a pipe
            os.lseek(stream.fileno(), 0, os.SEEK_END)


def _adopt_descendants() -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Killing make must not leave the stack behind: the kernel signals us when our parent is gone.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # Processes that a part leaves become children of this one: a Triton that stops while it loads leaves its stubs.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
