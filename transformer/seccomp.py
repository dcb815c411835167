"""Seccomp filter: system calls that the process may make once it serves.

An image that exploits its decoder runs code in this process. With the filter, that code can start no process,
inspect no other one, open no port, no file for writing and no socket but TCP and UDP, and make no memory executable.
"""

import ctypes
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

log = logging.getLogger("transformer")

# Calls that are allowed whatever their arguments, each with its number on x86_64 and aarch64; -: it has none.
ALLOWED = """
accept 43 202  accept4 288 242  access 21 -  brk 12 214  clock_getres 229 114  clock_gettime 228 113
clock_nanosleep 230 115  close 3 57  connect 42 203  dup 32 23  epoll_create1 291 20  epoll_ctl 233 21
epoll_pwait 281 22  epoll_wait 232 -  eventfd2 290 19  exit 60 93  exit_group 231 94  faccessat 269 48
fstat 5 80  fstatfs 138 44  futex 202 98  getcpu 309 168  getcwd 79 17  getdents64 217 61  getegid 108 177
geteuid 107 175  getgid 104 176  getpeername 52 205  getpid 39 172  getppid 110 173  getrandom 318 278
getrusage 98 165  getsockname 51 204  getsockopt 55 209  gettid 186 178  gettimeofday 96 169  getuid 102 174
lseek 8 62  lstat 6 -  madvise 28 233  mremap 25 216  munmap 11 215  nanosleep 35 101  newfstatat 262 79  pipe2 293 59
poll 7 -  ppoll 271 73  pread64 17 67  preadv 295 69  pselect6 270 72  read 0 63  readlink 89 -  readlinkat 267 78
readv 19 65  recvfrom 45 207  recvmmsg 299 243  recvmsg 47 212  restart_syscall 219 128  rseq 334 293
rt_sigaction 13 134  rt_sigprocmask 14 135  rt_sigreturn 15 139  sched_getaffinity 204 123  sched_getparam 143 121
sched_getscheduler 145 120  sched_yield 24 124  select 23 -  sendmmsg 307 269  sendmsg 46 211  sendto 44 206
set_robust_list 273 99  setsockopt 54 208  shutdown 48 210  sigaltstack 131 132  socketpair 53 199  stat 4 -
statfs 137 43  statx 332 291  sysinfo 99 179  time 201 -  times 100 153  uname 63 160  write 1 64  writev 20 66
"""
# Bits and values of the arguments by which other calls are allowed.
_INT = 0xFFFFFFFF
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x10000  # <linux/sched.h>, as all below from the kernel's headers
_WRITE, _EXECUTE = 2, 4


class Rule(NamedTuple):
    """A system call that is allowed by one of its arguments.

    Attributes:
        call: name.
        numbers: on x86_64 and aarch64; None where it has none.
        argument: index, from 0.
        mask: of the bits that are compared.
        values: that are allowed.
    """

    call: str
    numbers: tuple[int | None, int | None]
    argument: int
    mask: int
    values: Sequence[int]


RULES = [
    Rule("clone", (56, 220), 0, _CLONE_THREAD, [_CLONE_THREAD]),  # a thread, no process
    Rule("open", (2, None), 1, _WRITES, [0]),
    Rule("openat", (257, 56), 2, _WRITES, [0]),
    Rule("mmap", (9, 222), 2, _WRITE | _EXECUTE, [0, _WRITE, _EXECUTE]),  # a library: a file it cannot write
    Rule("mprotect", (10, 226), 2, _EXECUTE, [0]),
    Rule("socket", (41, 198), 0, _INT, [2, 10]),  # IPv4 and IPv6: not Docker's socket, nor the kernel's own
    Rule("fcntl", (72, 25), 1, _INT, [0, 1, 2, 3, 4, 1030]),  # duplicates, flags
    Rule("ioctl", (16, 29), 1, _INT, [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451]),  # of terminals, and flags
    Rule("prctl", (157, 167), 0, _INT, [15, 16, 0x53564D41]),  # names of threads and of memory
]
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # column, AUDIT_ARCH, seccomp(2)

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # <linux/filter.h>
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_SUCH_CALL, _NOT_PERMITTED = _ERRNO | 38, _ERRNO | 1
# From here on numbers are the same on all machines. Libraries try these calls, and fall back to older ones; clone3 has
# flags that a filter cannot see.
_FIRST_OF_THE_NEW, _IO_URING_SETUP = 424, 425
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1


def block_rings() -> None:
    """Have libuv do without io_uring, as in most containers: a filter does not see calls that go through a ring."""
    with suppress(OSError):  # confine() says so
        _install(
            lambda _: [_instruction(_EQUAL, _IO_URING_SETUP, otherwise=1), _instruction(_RETURN, _NO_SUCH_CALL)], _ALLOW
        )


def confine(listener: int) -> None:
    """Install the filter, for every thread and for ever; a blocked call fails with EPERM and ends nothing.

    Where the kernel accepts no filter, the log says so and the server serves without one.

    Args:
        listener: descriptor of the one socket, bound already, that may still be made to listen.
    """
    rules = [
        *RULES,
        Rule("listen", (50, 201), 0, _INT, [listener]),
        Rule("tgkill", (234, 131), 0, _INT, [os.getpid()]),  # raise(3), and no other process
    ]
    try:
        _install(lambda column: _compose(rules, column), _NOT_PERMITTED)
    except OSError as exc:
        log.warning("no seccomp filter: %s; code that takes over this process can make every system call", exc.strerror)


def _install(compose: Callable[[int], Iterable[bytes]], otherwise: int) -> None:
    """Add a filter to every thread.

    Args:
        compose: instructions for the machine of this column, behind the loading of a call's number.
        otherwise: what becomes of the call that they let through.

    Raises:
        OSError: the kernel accepts no filter, or the machine is unknown.
    """
    system, _, _, _, machine = os.uname()
    if system != "Linux" or machine not in _MACHINES or sys.maxsize < 2**32:
        raise OSError(0, f"there is none for {system} on {machine}")
    column, architecture, seccomp = _MACHINES[machine]
    instructions = [
        _instruction(_LOAD, 4),  # the architecture: numbers of another one mean other calls
        _instruction(_EQUAL, architecture, then=1),
        _instruction(_RETURN, _NOT_PERMITTED),
        _instruction(_LOAD, 0),  # the number
        *compose(column),
        _instruction(_RETURN, otherwise),
    ]
    program = ctypes.create_string_buffer(b"".join(instructions))
    # A struct sock_fprog: how many instructions, and where.
    header = ctypes.create_string_buffer(struct.pack("HP", len(instructions), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p]
    failed = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.addressof(header)
    )
    if failed:
        raise OSError(
            ctypes.get_errno(), f"thread {failed} has another one" if failed > 0 else os.strerror(ctypes.get_errno())
        )


def _compose(rules: Sequence[Rule], column: int) -> Iterator[bytes]:
    """Allow the listed calls, with the listed arguments: instructions of classic BPF over a struct seccomp_data."""
    for number in ALLOWED.split()[1 + column :: 3]:
        if number != "-":
            yield _instruction(_EQUAL, int(number), otherwise=1)
            yield _instruction(_RETURN, _ALLOW)
    for rule in rules:
        if (ruled := rule.numbers[column]) is not None:
            yield _instruction(_EQUAL, ruled, otherwise=3 + 2 * len(rule.values))
            yield _instruction(_LOAD, 16 + 8 * rule.argument)  # its lower half, the part that the kernel reads
            yield _instruction(_AND, rule.mask)
            for value in rule.values:
                yield _instruction(_EQUAL, value, otherwise=1)
                yield _instruction(_RETURN, _ALLOW)
            yield _instruction(_RETURN, _NOT_PERMITTED)
    yield _instruction(_AT_LEAST, _FIRST_OF_THE_NEW, otherwise=1)  # those of x32 among them
    yield _instruction(_RETURN, _NO_SUCH_CALL)


def _instruction(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """A struct sock_filter; `then` and `otherwise` are how many instructions are left out."""
    return struct.pack("HBBI", code, then, otherwise, operand)
