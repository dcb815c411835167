"""Words that the glossary replaces: `python -m tests.words` prints each place that has one, and fails then.

codespell finds them, with `glossary.txt` as its dictionary and the exceptions in `pyproject.toml`. A word with a right
of its own (the answer section of a DNS message) stays by `# codespell:ignore answer` at the end of its line.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_LINE = re.compile(r"(?P<path>.+?):(?P<line>\d+): (?P<word>.+?) ==> (?P<better>.+)")
_WITH_FINDINGS = 65  # codespell's exit status: EX_DATAERR of <sysexits.h>


class Finding(NamedTuple):
    """A word of the dictionary at a place."""

    path: str
    line: int
    word: str
    better: str


def main() -> int:
    """Print what was found, and return 1 where anything was."""
    findings = list(find("."))
    for each in findings:
        print(f"{each.path}:{each.line}: got {each.word}, expected {each.better}")
    return 1 if findings else 0


def find(place: str) -> Iterator[Finding]:
    """Words of the dictionary in a file, or in a folder and below it.

    Raises:
        RuntimeError: codespell did not run to its end.
    """
    command = [sys.executable, "-m", "codespell_lib", place]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in {0, _WITH_FINDINGS}:
        raise RuntimeError(f"codespell: exit status {done.returncode}, expected 0 or {_WITH_FINDINGS}: {done.stderr}")
    for match in filter(None, map(_LINE.fullmatch, done.stdout.splitlines())):
        path, line, word, better = match.groups()
        yield Finding(path.removeprefix("./"), int(line), word.lower(), better.lower())


if __name__ == "__main__":
    sys.exit(main())
