"""Installs the missing requirements of a command by make, with the hashes of the locks."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec

from environment.project import ROOT
from nereid.commands import MODELS, SIGNING, TRITON


class NeedsError(Exception):
    """What a command needs cannot be installed; the message says what to do."""


def provide(targets: Iterable[str], words: Sequence[str]) -> None:
    """Have make install what is missing.

    Args:
        targets: of make, all that a command may need.
        words: its arguments, some of which make a target unnecessary.

    Raises:
        NeedsError: make failed, or is not there.
    """
    missing = [] if {"-h", "--help"} & set(words) else list(_find_missing(targets, words))
    if not missing:
        return
    command = ["make", "--no-print-directory", "-C", str(ROOT), *missing]
    try:
        # The output of make is no output of the command.
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    except FileNotFoundError:
        raise NeedsError(f"{' '.join(missing)}: make is missing; next: apt-get install make") from None
    if status:
        raise NeedsError(f"{' '.join(missing)}: make failed; next: make -C {ROOT} {' '.join(missing)}")


def _find_missing(targets: Iterable[str], words: Sequence[str]) -> Iterator[str]:
    for target in targets:
        if target == MODELS:
            if not _is_given("REPOSITORY", words) and not _is_given("TRITON_URL", words) and not _has_models():
                yield target
        elif target == SIGNING:
            if _is_given("SIGN", words) and find_spec("model_signing") is None:
                yield target
        elif not (target == TRITON and _is_given("TRITON_URL", words)) and not (ROOT / target).exists():
            yield target


def _has_models() -> bool:
    return any((ROOT / "model_repository").glob("*/[0-9]*/manifest.json"))


def _is_given(variable: str, words: Sequence[str]) -> bool:
    option = f"--{variable.lower().replace('_', '-')}"
    return bool(os.environ.get(variable)) or any(word.partition("=")[0] == option for word in words)
