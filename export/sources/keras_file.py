"""What a file of Keras or TensorFlow holds, by its own description, before TensorFlow is installed or loaded.

Loading one can run code: a `Lambda` layer keeps Python's bytecode, a SavedModel is a program of TensorFlow, which reads
and writes files. Of a `.keras` and a `.h5` the description names each class, so that only those with code need the
user's permission; a SavedModel always does.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from export.errors import ExportError, first_line

Kind = Literal["keras", "h5", "saved_model"]

SUFFIXES: Mapping[str, Kind] = {".keras": "keras", ".h5": "h5", ".hdf5": "h5"}
GRAPH = "saved_model.pb"
_LARGEST_CONFIG_BYTES = 64 * 2**20  # ConvNeXtXLarge has less than 1 MiB
# Classes whose configuration is code, or names a file with code.
_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_PERMIT = "pass --allow-unpickling (make: ALLOW_UNPICKLING=1) if you trust where it comes from"
_INSTEAD = (
    "next: where its code is, write it with model.export('folder'), and pass that folder, or with "
    "model.export('model.onnx', format='onnx')"
)


def find_kind(path: Path) -> Kind | None:
    """What a path is by its name, or by what is in the folder; None for any other."""
    return "saved_model" if (path / GRAPH).is_file() else SUFFIXES.get(path.suffix.lower())


def check_file(path: Path, *, allowed: bool) -> Kind:
    """Reject what cannot be exported, or may not be loaded, as far as it describes itself.

    Of a `.h5` this needs h5py; where that is not installed, it is done before the file is loaded.

    Args:
        path: a `.keras` or `.h5` file, or the folder of a SavedModel.
        allowed: whether the user permits to run the code that it may hold.

    Raises:
        ExportError: it is missing, of another kind, or truncated; it holds code that the user did not permit; or it
            needs code that it does not hold.
    """
    kind = find_kind(path)
    if kind is None or not path.exists():
        raise ExportError(f"{path}: {_describe_missing(path)}")
    if kind == "saved_model":
        if not allowed:
            raise ExportError(
                f"{path}: a SavedModel is a program of TensorFlow, which can read and write files: {_PERMIT}"
            )
        return kind
    config = _read_zip(path) if kind == "keras" else _read_hdf5(path)
    if config is not None:
        _check_classes(path, config, allowed=allowed)
    return kind


def has_scaling(path: Path) -> bool:
    """Whether a layer of a `.keras` or `.h5` file scales its input; unknown of a SavedModel, hence False."""
    kind = find_kind(path)
    config = {"keras": _read_zip, "h5": _read_hdf5}[kind](path) if kind in {"keras", "h5"} else None
    return any(found.get("class_name") in {"Rescaling", "Normalization"} for found in _iterate(config))


def _describe_missing(path: Path) -> str:
    if path.is_dir():
        return f"got a folder without {GRAPH}, expected a SavedModel, as model.export('folder') writes it"
    if path.exists():
        return f"got {path.suffix or 'no suffix'}, expected a .keras or .h5 file, or the folder of a SavedModel"
    return "the file is missing"


def _read_zip(path: Path) -> Any:
    """The description of a `.keras` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _LARGEST_CONFIG_BYTES:
                raise ValueError(f"a description of {entry.file_size} bytes")
            return json.loads(archive.read(entry))
    # All that zipfile, zlib and json raise for another file; RuntimeError for an encrypted member.
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, RecursionError, OSError) as exc:
        raise ExportError(
            f"{path}: got {path.stat().st_size} bytes that are no model of Keras 3 ({first_line(exc)}): is the file "
            "truncated, or of another kind?"
        ) from exc


def _read_hdf5(path: Path) -> Any | None:
    """The description of a `.h5` file; None where h5py is not installed."""
    try:
        import h5py  # noqa: PLC0415 - of the extra keras
    except ImportError:
        return None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            config = json.loads(text) if text is not None else None
    except (OSError, ValueError, RuntimeError, RecursionError) as exc:
        raise ExportError(f"{path}: got no HDF5 file of Keras ({first_line(exc)}): is it truncated?") from exc
    if config is None:
        raise ExportError(f"{path}: got weights without their model; next: write both, with model.save('model.keras')")
    return config


def _check_classes(path: Path, config: Any, *, allowed: bool) -> None:
    for found in _iterate(config):
        name, module = found.get("class_name"), found.get("module")
        where = f"{path}: layer {_name(found)}"
        if name in _CODE and not allowed:
            raise ExportError(f"{where}: {name} runs Python's code that the file holds: {_PERMIT}")
        if not _is_of_keras(module, found.get("registered_name")) and name not in _CODE:
            package = module or found.get("registered_name")
            raise ExportError(
                f"{where}: got the class {name!r:.80} of {package!r:.80}, whose code the file does not hold; {_INSTEAD}"
            )


def _name(found: Mapping[str, Any]) -> str:
    config = found.get("config")
    return repr(config.get("name", "")) if isinstance(config, Mapping) else repr(config)[:80]


def _is_of_keras(module: Any, registered: Any) -> bool:
    """Whether a class is Keras' own; where no module is named (Keras 2), Keras looks among its own classes alone."""
    if module is None:
        return not (isinstance(registered, str) and ">" in registered)
    return isinstance(module, str) and (module in {"keras", "builtins"} or module.startswith("keras."))


def _iterate(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a description that names a class, or a function."""
    pending = [config]
    while pending:
        found = pending.pop()
        if isinstance(found, Mapping):
            if isinstance(found.get("class_name"), str):
                yield found
            pending.extend(found.values())
        elif isinstance(found, list):
            pending.extend(found)
