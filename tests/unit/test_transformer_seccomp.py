"""The filter of system calls: its numbers are the kernel's, and which calls it blocks, in a process of its own."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.confined import PROBES, REJECTED, find_libseccomp
from transformer.seccomp import ALLOWED, RULES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("column", "architecture"), [(0, 0xC000003E), (1, 0xC00000B7)], ids=["x86_64", "aarch64"])
def test_numbers_of_system_calls_are_those_of_libseccomp(column: int, architecture: int) -> None:
    library = find_libseccomp()
    words = ALLOWED.split()
    numbers = dict(zip(words[::3], (None if w == "-" else int(w) for w in words[1 + column :: 3]), strict=True))
    numbers |= {rule.call: rule.numbers[column] for rule in RULES} | {"listen": (50, 201)[column]}
    numbers |= {"tgkill": (234, 131)[column], "seccomp": (317, 277)[column], "io_uring_setup": 425}
    assert len(set(numbers.values()) - {None}) == len([each for each in numbers.values() if each is not None])
    for name, number in numbers.items():
        known = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture), name.encode())
        assert number == (known if known >= 0 else None), name


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The result of each probe in a process that has confined itself."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.confined"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("confined"))},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", PROBES)
def test_system_call_is_blocked_or_allowed(seen: dict[str, str], name: str) -> None:
    if name not in REJECTED:
        assert seen[name] == "done"
    else:
        assert seen[name] in {"EPERM", "ENOSYS"}
