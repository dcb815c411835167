"""Maps keys of a repository to models and versions; keys outside the layout are reported and ignored."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

SCHEMA_FILE = Path(__file__).resolve().parents[1] / "model_repository" / "manifest.schema.json"
SCHEMA: Mapping[str, Any] = json.loads(SCHEMA_FILE.read_bytes())

CONFIG = "config.pbtxt"
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SIGNATURE = "model.sig"  # of the manifest, beside it; the name that OpenSSF's model-signing gives
DEFAULT_PROFILE = "fp32"
_HIDDEN = re.compile(r"\.[^.]")
# Files that only `export` writes into a version, and a manifest after them.
EXPORTED = frozenset({CONFIG, GOLDEN, "parity.json"})
MODEL_SUFFIXES = (".onnx", ".plan", ".xml")
# Limits of one model: each version costs an entry of /status and a fingerprint at every listing.
TEXT_BYTES = 2**20  # of a config.pbtxt or manifest.json
MAX_VERSIONS = 1000  # of a model; prune keeps far fewer
MAX_FILES = 1000  # of a version, or of a model beside its versions; weights of the largest models are in hundreds
MAX_UNKNOWN_SHOWN = 1000  # keys outside the layout; further ones are counted
_LARGEST_VERSION = 2**63 - 1  # Triton's
_DIGITS = len(str(_LARGEST_VERSION))
_VERSION = re.compile("[1-9][0-9]*")
# Triton accepts any name that a folder may have. Its Python backend puts a model's name into a shell command, and
# names become parts of paths here: characters with a meaning to either are excluded, and "~" is free for our own names.
NAME = r"\w[\w.+@=,:-]*"
_NAME = re.compile(NAME)
_NAME_EXPECTED = "letters, digits and _ . + @ = , : -, a letter, a digit or _ first"
_LONGEST_MODEL, _LONGEST_FILE = 200, 240  # bytes, of the 255 of file systems: some get a prefix
# Files that a version may have: none of them is run as code. `python -m export fetch` writes only these too. Weights
# that PyTorch writes one by one have no suffix.
_VERSION_FILE = re.compile(r".+\.(onnx|xml|plan|json|npz|pbtxt|txt|data|onnx_data|bin|weights?|bias)|[^.]+")
_VERSION_FILES = (
    "*.onnx, *.xml, *.plan, *.json, *.npz, *.pbtxt, *.txt, or weights: *.data, *.onnx_data, *.bin, *.weight, "
    "*.weights, *.bias, a name without a dot"
)
# Beside its versions a model has its labels. Triton searches for code here: libtriton_*.so, triton_python_backend_stub.
LABELS = r"\.(txt|csv|tsv|names|labels)"
_LABELS = re.compile(f".+{LABELS}")


def _rule(name: str) -> re.Pattern[str]:
    return re.compile(SCHEMA["$defs"][name]["pattern"].removeprefix("^").removesuffix("$"))


_EXPORTED_MODEL = _rule("model_name")


@dataclass(frozen=True, slots=True)
class Object:
    """A file of the repository.

    Attributes:
        key: path below the repository's root, with slashes.
        size: in bytes.
        etag: changes with the content.
        modified: by the clock of the storage.
        link: a symbolic link, which is never followed.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    link: bool = False


@dataclass
class ModelFolder:
    """A model in the repository.

    Attributes:
        shared: files of the model itself by their path in its folder: config.pbtxt, labels, configs/, warmup/.
        versions: files of each version by their name, or by `model.onnx/<name>` where the model is a folder.
        signatures: of versions; apart, because a version that is signed again is still the same version.
    """

    shared: dict[str, Object] = field(default_factory=dict)
    versions: dict[int, dict[str, Object]] = field(default_factory=dict)
    signatures: dict[int, Object] = field(default_factory=dict)


def read_layout(objects: Iterable[Object]) -> tuple[dict[str, ModelFolder], dict[str, str]]:
    """Sort a listing.

    Returns:
        Models by name, empty folders among them, and why a key was ignored, by key; by `<name>/` for a whole folder.
    """
    models: dict[str, ModelFolder] = {}
    ignored: dict[str, str] = {}
    for item in objects:
        name, *rest = item.key.split("/")
        if not item.key or item.key == SCHEMA_FILE.name or _is_hidden(item.key):
            continue  # the schema that comes with the project; a file that is being written
        if reason := _find_folder_problem(item, name, rest):
            ignored.setdefault(f"{name}/" if rest or item.link else name, reason)
            continue
        model = models.setdefault(name, ModelFolder())
        # The last part is empty where the key is the marker of a folder.
        if rest[-1] and (reason := _place(item, rest, model)) and len(ignored) < MAX_UNKNOWN_SHOWN:
            ignored[item.key] = reason
    for name, model in models.items():
        ignored |= _limit(name, model)
    return models, ignored


def _limit(name: str, model: ModelFolder) -> dict[str, str]:
    """Drop what exceeds the limits, in place, the oldest versions first, and return why, by path."""
    ignored = {}
    for version in sorted(model.versions)[:-MAX_VERSIONS]:
        ignored[f"{name}/{version}"] = f"got {len(model.versions)} versions, expected at most {MAX_VERSIONS}"
    for version, files in model.versions.items():
        if len(files) > MAX_FILES:
            ignored[f"{name}/{version}"] = f"got {len(files)} files, expected at most {MAX_FILES}"
    for path in sorted(model.shared)[MAX_FILES:]:
        ignored[f"{name}/{path}"] = f"got {len(model.shared)} files, expected at most {MAX_FILES}"
        del model.shared[path]
    model.versions = {version: files for version, files in model.versions.items() if f"{name}/{version}" not in ignored}
    model.signatures = {version: item for version, item in model.signatures.items() if version in model.versions}
    return ignored


def _is_hidden(key: str) -> bool:
    return any(_HIDDEN.match(segment) for segment in key.split("/"))


def _find_folder_problem(item: Object, name: str, rest: Sequence[str]) -> str | None:
    """Why the folder of a file is not a model's; None where it is."""
    if item.link and not rest:
        return "a link, which is not followed: expected the folder itself"
    if not rest:
        return "it belongs to no model: expected <model>/<version>/<file>"
    return find_name_problem(name)


def _place(item: Object, rest: Sequence[str], model: ModelFolder) -> str | None:
    """Put a file into its model's folder, or return why it does not belong there."""
    if item.link:
        return "a link: expected the file itself"
    if illegal := [segment for segment in rest if not _is_name(segment, longest=_LONGEST_FILE)]:
        return f"{illegal[0]!r:.80}: expected {_NAME_EXPECTED}"
    match rest:
        case [folder, file] if is_version(folder) and file == SIGNATURE:
            model.signatures[int(folder)] = item
        case [folder, file] if is_version(folder):
            if reason := find_file_problem(file):
                return reason
            model.versions.setdefault(int(folder), {})[file] = item
        case [folder, file, part] if is_version(folder) and is_model_folder(file):
            if reason := find_file_problem(part):
                return reason
            model.versions.setdefault(int(folder), {})[f"{file}/{part}"] = item
        case [file] if file == CONFIG or _LABELS.fullmatch(file):
            model.shared[file] = item
        case ["configs", file] if file.endswith(".pbtxt"):
            model.shared[f"configs/{file}"] = item
        case ["warmup", file]:
            model.shared[f"warmup/{file}"] = item
        case [folder, *_]:
            zeros = ": Triton accepts none that begins with 0" if folder.isdecimal() and folder[0] == "0" else ""
            return (
                f"{folder!r}{zeros}: expected {CONFIG}, labels (*.txt, *.csv), configs/*.pbtxt, warmup/*, or a version "
                "1, 2, 3, ..."
            )
    return None


def find_file_problem(name: str) -> str | None:
    """Why a file cannot be part of a version; None where it can."""
    if _is_name(name, longest=_LONGEST_FILE) and _VERSION_FILE.fullmatch(name):
        return None
    return f"{name!r:.80} is no file of a version: expected {_VERSION_FILES}"


def is_model_folder(name: str) -> bool:
    """Whether a folder of a version may be a model itself: Triton reads `model.onnx` in it, and weights beside that."""
    return name.endswith(".onnx")


def find_missing(names: Collection[str]) -> str | None:
    """What a version without a manifest waits for, by the names of its files; None where it has a model.

    Files that export writes come with a manifest, which comes last.
    """
    if written := sorted(EXPORTED & set(names)):
        return f"{MANIFEST}: it has {', '.join(written)}, which export writes"
    if not any(name.endswith(MODEL_SUFFIXES) for name in names):
        kinds = ", ".join(f"*{suffix}" for suffix in MODEL_SUFFIXES)
        return f"a model file ({kinds}): it has {', '.join(sorted(names))}"
    return None


def find_name_problem(name: str) -> str | None:
    """Why a folder's name cannot be a model's; None where it can."""
    if _is_name(name, longest=_LONGEST_MODEL):
        return None
    return f"{name!r:.80} is no model's name: expected {_NAME_EXPECTED}, at most {_LONGEST_MODEL} bytes"


def golden_name(profile: str) -> str:
    """Name of the golden input with the outputs of a profile, where they differ from FP32's."""
    return f"golden.{profile}.npz"


def is_model_name(name: str) -> bool:
    """Whether a folder of this name is a model's."""
    return find_name_problem(name) is None


def is_exported_name(name: str) -> bool:
    """Whether export accepts a model's name: it is legal in S3, Triton, Kubernetes and a URL alike."""
    return _EXPORTED_MODEL.fullmatch(name) is not None


def is_version(segment: str) -> bool:
    """Whether it is a number that Triton accepts as a version."""
    return bool(_VERSION.fullmatch(segment)) and len(segment) <= _DIGITS and int(segment) <= _LARGEST_VERSION


def _is_name(segment: str, *, longest: int) -> bool:
    return _NAME.fullmatch(segment) is not None and len(segment.encode()) <= longest
