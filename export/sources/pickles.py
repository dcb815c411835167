"""Pickled and joblib files. Loading one runs the code that it holds, so it needs the user's permission."""

import re
import warnings
from pathlib import Path
from typing import Any

import joblib
import sklearn

from export.errors import ExportError

SUFFIXES = (".pkl", ".pickle", ".joblib", ".sav")

# scikit-learn writes its version into the state of every estimator.
_VERSION = re.compile(rb"_sklearn_version.{1,24}?([0-9]+\.[0-9]+(?:\.[0-9a-z]+)*)", re.DOTALL)


def unpickle(path: Path, *, allowed: bool) -> Any:
    """Load a pickle or joblib file, which runs the code that it holds.

    Raises:
        ExportError: the user did not permit it (the file is not opened then), or it is not such a file.
    """
    if not allowed:
        raise ExportError(
            f"{path}: unpickling runs the code that the file holds: pass --allow-unpickling if you trust where it "
            "comes from"
        )
    if not path.is_file():
        raise ExportError(f"{path}: the file is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions: `of_other_version` reports it in a line
            return joblib.load(path)
    except Exception as exc:  # the code of a pickle may raise anything
        reason = f"{type(exc).__name__}: {str(exc)[:200]}"
        if (other := of_other_version(path)) is not None:
            raise ExportError(f"{path}: {other}: it cannot be loaded ({reason}); {NEXT}") from exc
        raise ExportError(
            f"{path}: got no pickled or joblib estimator ({reason}): is the file truncated, of another kind, or made "
            "by a package that is not installed here?"
        ) from exc


def of_other_version(path: Path) -> str | None:
    """Which other version of scikit-learn made the file, in words; None where it is this one, or unknown."""
    found = {version.decode() for version in _VERSION.findall(path.read_bytes())} - {sklearn.__version__}
    return f"made by scikit-learn {', '.join(sorted(found))}, here is {sklearn.__version__}" if found else None


NEXT = f"next: fit it again with scikit-learn {sklearn.__version__}, or export it where its own version is installed"
