"""What the embedded Triton shares with its models is not for other users of the machine.

Its Python backend puts every request into /dev/shm, in files that it opens to everybody whatever the umask says. So
Triton gets a /dev/shm of its own: a mount that only it and the processes that it starts see.
"""

import ctypes
import os
import signal
from pathlib import Path

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # shm_open(3)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000  # <linux/sched.h>
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x4000, 0x40000  # <linux/mount.h>
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # <linux/prctl.h>
_OURS = 0o077


def close_to_others() -> str:
    """Close what this process, and what it becomes, writes to other users.

    Returns:
        Why the shared memory stays open to them; empty where it does not.
    """
    os.umask(_OURS)
    try:
        _leave_mounts()
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        _call("mount", b"tmpfs", _SHARED_MEMORY.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0700")
    except OSError as exc:
        return f"{_SHARED_MEMORY}: {exc.strerror}"
    return ""


def _leave_mounts() -> None:
    """Have mounts of our own: root may, others in a user namespace where they are nobody else than before."""
    try:
        _call("unshare", _CLONE_NEWNS)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        last_wish = ctypes.c_int(0)
        _call("prctl", _PR_GET_PDEATHSIG, ctypes.byref(last_wish))
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        # The kernel forgets it with the old rights: the parent's death still ends us.
        _call("prctl", _PR_SET_PDEATHSIG, signal.Signals(last_wish.value) if last_wish.value else 0)
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            Path("/proc/self", name).write_text(text)


def _call(name: str, *arguments: object) -> None:
    """A function of libc.

    Raises:
        OSError: as errno says.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
