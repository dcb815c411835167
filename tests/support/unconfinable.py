"""The transformer on a kernel without seccomp filters: `python -m tests.support.unconfinable`, with its arguments."""

import ctypes
import errno
import os
import struct
import sys

from transformer.program import main

_SECCOMP = {"x86_64": 317, "aarch64": 277}  # the number of seccomp(2)
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1  # <linux/prctl.h>, <linux/seccomp.h>
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # <linux/filter.h>
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def forbid_seccomp() -> None:
    """Make seccomp(2) fail with ENOSYS in this process.

    Raises:
        OSError: the kernel installs no filter.
    """
    seccomp = _SECCOMP[os.uname().machine]
    instructions = b"".join(
        struct.pack("HBBI", code, 0, otherwise, operand)
        for code, otherwise, operand in (
            (_LOAD, 0, 0),  # the number of the call, first in a struct seccomp_data
            (_EQUAL, 1, seccomp),
            (_RETURN, 0, _ERRNO | errno.ENOSYS),
            (_RETURN, 0, _ALLOW),
        )
    )
    program = ctypes.create_string_buffer(instructions)
    header = ctypes.create_string_buffer(struct.pack("HP", len(instructions) // 8, ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    # Every thread: those of NumPy are there since its import.
    filtered = (
        ctypes.c_long(seccomp),
        ctypes.c_long(_SET_MODE_FILTER),
        ctypes.c_long(_ALL_THREADS),
        ctypes.byref(header),
    )
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) or libc.syscall(*filtered):
        raise OSError(ctypes.get_errno(), "the kernel installed no filter")


if __name__ == "__main__":
    forbid_seccomp()
    sys.exit(main())
