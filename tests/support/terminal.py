"""Terminals of a user in a checkout of their own, who types what a page says: `$ command`, and the output below it.

A line of output that is `...` stands for any lines, `...` within a line for any text. Figures that differ from run to
run (seconds, ports, ids, dates, digests) are compared as such, every other word as it is written. JSON, however it is
wrapped, has the same members and values.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import ended
from tests.support.stack import PATIENCE_S, ROOT

_NOT_COPIED = {"output", "shared"}
# Files that make would install or make first; the tests have them already.
_THERE = (
    ".venv/.stack",
    ".venv/.s3",
    ".venv/.loadtest",
    ".venv/.signing",
    ".venv-triton/.installed",
    "models",
    "models-fp32",
)
# The longest first: what stands in for a figure is no figure.
_FIGURES = (
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:\+\d\d:\d\d|Z)?",
    r"nereid_[\w-]{43}",
    r"[0-9a-f]{64}",
    r"(?<=:)\d{4,5}\b",
    r"\b\d+(?:\.\d+)?e-\d+\b",
    r"\b\d+\.\d+\b",
)
_MEASURED = {"time", "timing_ms"}
_CLOSE = 0.05  # pixels of boxes, which another CPU may round otherwise
_SPACE = re.compile(r"[ ─━│┃┏┓┗┛┡┩└┘├┤┬┴┼┳┻╇]+")  # the width of a table follows from what is in it


@dataclass(frozen=True)
class Command:
    """A command of a page, and its expected output.

    Attributes:
        text: one command of bash, with its lines.
        output: the lines that the page shows below it; none where it shows nothing.
    """

    text: str
    output: Sequence[str]


@dataclass
class Terminal:
    """A shell in a checkout.

    Attributes:
        folder: the checkout.
        environ: its variables; `export` changes them.
        replaced: in each command, what differs on this machine: ports.
    """

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)

    def run(self, block: str) -> str:
        """Type a block of a page; fail where a command fails, or prints something else.

        Returns:
            What was printed, all of it.
        """
        return "".join(self.type(command) for command in read_commands(block))

    def type(self, command: Command) -> str:
        """Type one command of a page."""
        script = f"{self._fit(command.text)}\nstatus=$?\nenv -0 > {shlex.quote(str(self._variables))}\nexit $status"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{command.text}\n{printed}"
        self.environ = dict(each.split("=", 1) for each in self._variables.read_text().split("\0") if each)
        assert matches(command.output, printed), f"{command.text}\nthe page:\n{command.output}\nprinted:\n{printed}"
        return printed

    @contextmanager
    def leave_running(self, command: str, *, until: str) -> Iterator[Path]:
        """Type a command that runs until Ctrl-C; inside it runs, and has printed a line that has this in it.

        Yields:
            A file of what it prints.
        """
        log = self.folder / "terminal.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._fit(command)}"],
                cwd=self.folder, env=self.environ, stdout=output, stderr=output,
            )  # fmt: skip
        with ended(process, patience_s=PATIENCE_S):
            deadline = time.monotonic() + PATIENCE_S
            while until not in log.read_text(errors="replace"):
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.1)
            yield log

    @property
    def _variables(self) -> Path:
        return self.folder / "terminal.env"

    def _fit(self, text: str) -> str:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text


def open_terminal(folder: Path, ports: Mapping[str, str], **variables: str) -> Terminal:
    """A terminal in a new checkout, which has the environments and the shipped models.

    Args:
        folder: an empty one, for the checkout and a home.
        ports: variables of the stack, as `tests.support.stack.free_ports` makes them.
        variables: more of the environment.
    """
    checkout, home, programs = folder / "nereid", folder / "home", folder / "bin"
    for each in (checkout, home, programs):
        each.mkdir()
    for each in ROOT.iterdir():
        if each.name.startswith(".venv"):
            (checkout / each.name).symlink_to(each)
        elif each.is_file():
            shutil.copy2(each, checkout)
        elif each.name not in _NOT_COPIED and not each.name.startswith("."):
            # Whole, for a program finds the project's folder through every link; with what Python has compiled.
            shutil.copytree(each, checkout / each.name, symlinks=True)
    make = shutil.which("make")
    assert make is not None
    (programs / "make").write_text(f'#!/bin/sh\nexec {make} {" ".join(f"-o {each}" for each in _THERE)} "$@"\n')
    # As `. .venv/bin/activate` gives it, for this checkout.
    (programs / "nereid").write_text(
        f'#!/bin/sh\nPYTHONPATH={checkout} exec {checkout}/.venv/bin/python -m nereid "$@"\n'
    )
    for each in programs.iterdir():
        each.chmod(0o755)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    own = {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "PYTHON": sys.executable, "COLUMNS": "120"}
    port_of = {"localhost:8080": ports.get("HTTP_PORT"), "localhost:8081": ports.get("GRPC_PORT")}
    replaced = {address: f"localhost:{port}" for address, port in port_of.items() if port}
    return Terminal(checkout, kept | own | dict(ports) | variables, replaced)


def read_commands(block: str) -> list[Command]:
    """The commands of a block: each begins with `$ `, and a document (`<<'EOF'`) ends where it says."""
    commands: list[tuple[list[str], list[str]]] = []
    end = ""
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(([line.removeprefix("$ ")], []))
            found = re.search(r"<<'?(\w+)'?", line)
            end = found[1] if found else ""
        elif end or (commands and commands[-1][0][-1].endswith("\\")):
            commands[-1][0].append(line)
            end = "" if line == end else end
        elif commands:
            commands[-1][1].append(line)
    return [Command("\n".join(text), [line for line in output if line.strip()]) for text, output in commands]


def matches(expected: Sequence[str], printed: str) -> bool:
    """Whether a page's lines of output are those that were printed."""
    if not expected:
        return True
    if expected[0].startswith("{"):
        return _is_like(json.loads("".join(expected)), json.loads(printed.strip().splitlines()[-1]))
    lines = [_blur(line) for line in printed.splitlines() if line.strip()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(_blur(line)).replace(r"\.\.\.", ".*") + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def _is_like(expected: Any, got: Any, name: str = "") -> bool:
    """Whether JSON has the members of a page's, and their values but for ids and times."""
    if isinstance(expected, dict) and isinstance(got, dict):
        inside = {key: name if name in _MEASURED else key for key in expected}
        return expected.keys() == got.keys() and all(_is_like(expected[key], got[key], inside[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(_is_like(*pair, name) for pair in zip(expected, got, strict=True))
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return name in _MEASURED or abs(got - expected) <= _CLOSE
    return bool(expected == got) or (isinstance(got, str) and _blur(str(expected)) == _blur(got))


def _blur(line: str) -> str:
    for figure in _FIGURES:
        line = re.sub(figure, "#", line)
    return _SPACE.sub(" ", line).strip()
