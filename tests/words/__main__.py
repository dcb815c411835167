"""Words that the glossary replaces: `python -m tests.words` fails where a page has one, or the code more than before.

codespell finds them, with `glossary.txt` as its dictionary and the exceptions in `pyproject.toml`. Pages (`*.md`) have
none. The code, its tests and its scripts are on the way there: `most.json` says how often each word may still occur in
all of them together, and `python -m tests.words lower` writes down what is left. A word with a right of its own (the
answer section of a DNS message) stays by `# codespell:ignore answer` at the end of its line.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MOST = Path(__file__).with_name("most.json")
_LINE = re.compile(r"(?P<path>.+?):(?P<line>\d+): (?P<word>.+?) ==> (?P<better>.+)")
_WITH_FINDINGS = 65  # codespell's exit status: EX_DATAERR of <sysexits.h>


class Finding(NamedTuple):
    """A word of the dictionary at a place."""

    path: str
    line: int
    word: str
    better: str


def main(arguments: list[str]) -> int:
    """Print what is new, and return 1 where anything is."""
    findings = list(find("."))
    if arguments == ["lower"]:
        MOST.write_text(json.dumps(dict(sorted(count(findings).items())), indent=1) + "\n")
        return 0
    problems = [*judge_pages(findings), *judge_code(findings, json.loads(MOST.read_text()))]
    print("\n".join(problems) or f"words: {sum(count(findings).values())} of the old ones are left, none is new")
    return 1 if problems else 0


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


def count(findings: Collection[Finding]) -> Counter[str]:
    """How often each word occurs outside pages."""
    return Counter(each.word for each in findings if not each.path.endswith(".md"))


def judge_pages(findings: Collection[Finding]) -> Iterator[str]:
    """Each finding in a page."""
    for each in findings:
        if each.path.endswith(".md"):
            yield f"{each.path}:{each.line}: {each.word}; expected {each.better}"


def judge_code(findings: Collection[Finding], most: Mapping[str, int]) -> Iterator[str]:
    """Each word that occurs more often than it may."""
    better = {each.word: each.better for each in findings}
    for word, times in sorted(count(findings).items()):
        if times > most.get(word, 0):
            yield (
                f"{word}: {times} times in the code, at most {most.get(word, 0)}; expected {better[word]}; "
                f"next: git diff HEAD | grep -i {word.split()[0]}"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
