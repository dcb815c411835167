"""Hides the memory that the embedded Triton shares with its models from other users of the machine.

Triton's Python backend writes every request into files in /dev/shm that are readable by all users, regardless of the
umask. So Triton gets a /dev/shm of its own: a mount that only it and its child processes see.
"""

import ctypes
import os
import signal
from pathlib import Path

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # shm_open(3)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000  # <linux/sched.h>
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x4000, 0x40000  # <linux/mount.h>
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # <linux/prctl.h>
_PRIVATE_UMASK = 0o077


def close_to_others() -> str:
    """Make the files and shared memory of this process, and of the program it executes, private to its user.

    Returns:
        Why the shared memory stays readable by others; empty where it is private.
    """
    os.umask(_PRIVATE_UMASK)
    try:
        _leave_mounts()
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        _call("mount", b"tmpfs", _SHARED_MEMORY.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0700")
    except OSError as exc:
        return f"{_SHARED_MEMORY}: {exc.strerror}"
    return ""


def _leave_mounts() -> None:
    """Enter a mount namespace: as root, or as any user in a user namespace that keeps its ids."""
    try:
        _call("unshare", _CLONE_NEWNS)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        death_signal = ctypes.c_int(0)
        _call("prctl", _PR_GET_PDEATHSIG, ctypes.byref(death_signal))
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        # The kernel drops it with the old credentials; set again, so that this process ends with its parent.
        _call("prctl", _PR_SET_PDEATHSIG, signal.Signals(death_signal.value) if death_signal.value else 0)
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            Path("/proc/self", name).write_text(text)


def _call(name: str, *arguments: object) -> None:
    """Call a function of libc.

    Raises:
        OSError: by errno.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
