"""The end of a process while it starts."""

import signal
import sys


def end_at_sigterm() -> None:
    """Have SIGTERM end this process, until it has a handler of its own.

    The kernel passes no signal without a handler to the first process of a container (pid_namespaces(7)): stopped while
    it imports, it would run on until it is killed at the end of its grace period.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
