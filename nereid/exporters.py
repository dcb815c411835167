"""`nereid export MODEL FILE`: the exporter for a file, and what that exporter needs.

A .pt, .onnx or .engine of Ultralytics, any other .onnx, a model of Keras, a pickled estimator, or a file of XGBoost. A
word that names an exporter goes first where the file's name does not say it: `nereid export xgboost MODEL FILE`.
"""

import contextlib
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from environment.arguments import Parser
from nereid.needs import NeedsError, provide

BY_SUFFIX = {
    ".pt": "ultralytics",
    ".onnx": "ultralytics",
    ".engine": "ultralytics",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".json": "xgboost",
    ".ubj": "xgboost",
}
PICKLES = (".joblib", ".pkl", ".pickle", ".sav")
EXPORTERS = ("ultralytics", "onnx", "keras", "sklearn", "xgboost", "examples", "tensorrt")
_USAGE = "nereid export MODEL FILE [options]"
_ULTRALYTICS, _KERAS = ".venv/.ultralytics", ".venv/.keras"
_SAVED_MODEL = "saved_model.pb"
_HELP = f"""usage: {_USAGE}

Add a model to the model repository. It is compared with its source first; nothing there is ever overwritten.
The exporter is chosen by FILE:

  .pt .engine, or an .onnx of Ultralytics     a YOLO network (ultralytics)
  .onnx                                       any other network (onnx)
  .keras .h5, the folder of a SavedModel      a model of Keras or TensorFlow (keras)
  {" ".join(PICKLES):<42}  a scikit-learn classifier, regressor or pipeline (sklearn)
  .json .ubj, or a pickle that names xgboost  an XGBoost model (xgboost)

`nereid export EXPORTER MODEL FILE` names the exporter. `nereid export examples` makes the models that come with the
project, `nereid export tensorrt FOLDER` adds a plan for this machine's GPU. Options of each exporter:
"""


def main() -> int:
    """Choose the exporter and run it."""
    words = sys.argv[1:]
    if words in (["-h"], ["--help"], []):
        return _print_help()
    try:
        exporter = choose(words)
        if exporter not in words[:1]:
            words = [exporter, *words]
        prepare(words)
    except NeedsError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except ValueError as exc:
        Parser(prog="nereid export", usage=_USAGE).error(str(exc))
    sys.argv[:] = ["nereid export", *words]
    runpy.run_module("export", run_name="__main__")
    return 0


def choose(words: Sequence[str]) -> str:
    """The exporter for a command line.

    Args:
        words: `[exporter] MODEL FILE [options]`.

    Raises:
        ValueError: they name no file, or one that no exporter reads.
    """
    if words[0] in EXPORTERS:
        return words[0]
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise ValueError(f"got {' '.join(words)}, expected MODEL and FILE before the options")
    file = Path(words[1])
    suffix = file.suffix.lower()
    if suffix in PICKLES:
        return "xgboost" if _names(file, b"xgboost") else "sklearn"
    if suffix == ".onnx" and not _names(file, b"imgsz", b"stride"):
        return "onnx"
    if (file / _SAVED_MODEL).is_file():
        return "keras"
    if suffix not in BY_SUFFIX:
        known = " ".join([*BY_SUFFIX, *PICKLES])
        raise ValueError(f"FILE: got {words[1]}, expected one of {known}; next: nereid export EXPORTER MODEL FILE")
    return BY_SUFFIX[suffix]


def prepare(words: Sequence[str]) -> None:
    """Have make install what a .pt or a model of Keras needs, several GB, unless the file is rejected before.

    Raises:
        NeedsError: it cannot be installed, or the file is rejected.
    """
    needed = _find_needed(words)
    if needed is None:
        return
    permission = ["--allow-unpickling"] if "--allow-unpickling" in words else []
    check = [sys.executable, "-m", "export", "weights", *words[2:3], *permission]
    if len(words) > 2 and subprocess.run(check, check=False).returncode:
        raise NeedsError(f"{words[2]}: nothing was installed and nothing exported")
    provide([needed], words)


def _find_needed(words: Sequence[str]) -> str | None:
    """The target of make with torch or TensorFlow that an exporter needs for its file."""
    if words[0] == "keras":
        return _KERAS
    is_pt = words[0] == "ultralytics" and len(words) > 2 and Path(words[2]).suffix not in {".onnx", ".engine"}
    return _ULTRALYTICS if is_pt or "--predict" in words else None


def _names(file: Path, *words: bytes) -> bool:
    """Whether a file has these words: a pickle that of a package, an ONNX file the keys of Ultralytics' metadata.

    Nothing of it is run. One that cannot be read has them: the exporter that is meant for it says so.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return words != (b"xgboost",)
    return all(word in content for word in words)


def _print_help() -> int:
    print(_HELP, flush=True)
    for exporter in ("ultralytics", "onnx", "keras", "sklearn", "xgboost"):
        sys.argv[:] = ["nereid export", exporter, "--help"]
        with contextlib.suppress(SystemExit):
            runpy.run_module("export", run_name="__main__")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
