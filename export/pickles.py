"""Pickled and joblib files. Loading one runs whatever code it holds, so nothing is opened without the user's word."""

import pickle
from pathlib import Path
from typing import Any

import joblib

from export.errors import ExportError

SUFFIXES = (".pkl", ".pickle", ".joblib", ".sav")

# What loading raises is as wide as what a pickle may do.
_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
)


def unpickle(path: Path, *, allowed: bool) -> Any:
    """Load a pickle or joblib file, which runs whatever code it holds.

    Raises:
        ExportError: the user did not allow it (the file is not opened then), or it is no such file.
    """
    if not allowed:
        raise ExportError(
            f"{path}: unpickling runs whatever code the file holds: pass --allow-unpickling if you trust where it "
            "comes from"
        )
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    try:
        return joblib.load(path)
    except _ERRORS as exc:
        raise ExportError(
            f"{path}: got no pickled or joblib estimator ({type(exc).__name__}: {str(exc)[:200]}): cut off, something "
            "else, or made by a package that is not installed here?"
        ) from exc
