"""Imports a runtime without taking the CPUs from the models that serve: most of what loading a small version costs."""

import importlib
import os
import threading

_NICENESS = 19  # the least weight that Linux gives


def import_gently(name: str) -> None:
    """Import a module in a thread of the lowest priority, and wait for it.

    A process cannot raise its priority again without a privilege; a thread that ends takes its own along. Threads that
    the module starts while it is imported keep it: those of a session are started later.

    Args:
        name: of the module; where it cannot be imported, the import statement that follows says why.
    """
    thread = threading.Thread(target=_import, args=(name,))
    thread.start()
    thread.join()


def _import(name: str) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        importlib.import_module(name)
    except (OSError, ImportError):
        return
