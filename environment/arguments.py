"""The command lines of all parts: an option that does not exist is reported with the nearest one that does."""

import argparse
import difflib
import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

_CLOSE = 0.6  # of difflib


class Parser(argparse.ArgumentParser):
    """A parser that reports what is wrong in one line, after the usage of the command that was meant."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and leave nothing over: argparse would report an unknown option with the usage of the whole program.

        Args:
            args: words of the command line.
            namespace: as for argparse.
        """
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # before argparse reports a required option as missing that is only misspelt
            for word in words[: words.index("--") if "--" in words else None]:
                self._check(word.partition("=")[0])
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unknown argument: {unknown[0]}")
        return found, []

    def _check(self, option: str) -> None:
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        if option.startswith("--") and not any(name.startswith(option) for name in known):
            self.error(f"unknown option: {option}{nearest(option, known)}")


def number(text: str, *, least: float, most: float, expected: str) -> float:
    """Read the value of an option, a number between two others.

    Raises:
        argparse.ArgumentTypeError: it is invalid; the message has what was expected.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return value


positive = partial(number, least=0.001, most=1e6, expected="a number from 0.001")
seconds = partial(number, least=0, most=86400, expected="seconds from 0 to 86400")


def count(text: str, *, least: int = 1) -> int:
    """Read the value of an option, a whole number.

    Raises:
        argparse.ArgumentTypeError: it is invalid, or less.
    """
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from {least}")
    return int(text)


def nearest(word: str, known: Collection[str], *, otherwise: str = "") -> str:
    """`; did you mean <one of those known>?`, if one of them is close.

    Args:
        word: what was given.
        known: what exists.
        otherwise: returned if none is close.
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=_CLOSE)
    return f"; did you mean {close[0]}?" if close else otherwise


def program(module: str) -> str:
    """How the user started a module, for the usage that its parser prints.

    Args:
        module: as in `python -m <module>`; `nereid` runs it too, with its own name as `sys.argv[0]`.
    """
    return sys.argv[0] if sys.argv[0].split(" ")[0] == "nereid" else f"python -m {module}"
