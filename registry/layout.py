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
DEFAULT_PROFILE = "fp32"
_HIDDEN = re.compile(r"\.[^.]")
# Files that only `export` writes into a version, and a manifest after them.
EXPORTED = frozenset({CONFIG, GOLDEN, "parity.json"})
MODEL_SUFFIXES = (".onnx", ".plan", ".xml")
# What one repository may have. Each model costs the synchroniser a thread's work, Triton a process, each version a line
# of /status and a fingerprint at every listing.
TEXT_BYTES = 2**20  # of a config.pbtxt or manifest.json
MAX_MODELS = 512
MAX_VERSIONS = 1000  # of a model; prune keeps far fewer
MAX_FILES = 1000  # of a version, or of a model beside its versions; weights of the largest models are in hundreds
MAX_FOLDER_OBJECTS = 20_000  # of a model, in all
MAX_KEPT_OBJECTS = 200_000  # of all models: 80 MB of memory, twice while one listing takes the place of another
MAX_OBJECTS = 2_000_000  # walked at each listing: S3 takes minutes for them; what comes behind them is not seen
_STRANGE_SHOWN = 1000  # keys that belong nowhere; the others are counted
_LARGEST_VERSION = 2**63 - 1  # Triton's
_DIGITS = len(str(_LARGEST_VERSION))
_VERSION = re.compile("[1-9][0-9]*")
# Triton takes any name that a folder may have. Its Python backend puts a model's name into a line for a shell, and
# names become parts of paths here: signs that mean something to either are left out, and "~" is free for our own names.
NAME = r"\w[\w.+@=,:-]*"
_NAME = re.compile(NAME)
_NAME_EXPECTED = "letters, digits and _ . + @ = , : -, a letter, a digit or _ first"
_LONGEST_MODEL, _LONGEST_FILE = 200, 240  # bytes, of the 255 that file systems take: ours are put in front of some
# All that a version may hold: nothing of it is run as code. `python -m export fetch` writes nothing else either.
# Without a suffix are the weights that PyTorch writes one by one.
_VERSION_FILE = re.compile(r".+\.(onnx|xml|plan|json|npz|pbtxt|txt|data|onnx_data|bin|weights?|bias)|[^.]+")
_VERSION_FILES = (
    "*.onnx, *.xml, *.plan, *.json, *.npz, *.pbtxt, *.txt, or weights: *.data, *.onnx_data, *.bin, *.weight, "
    "*.weights, *.bias, a name without a dot"
)
# Beside its versions a model has its labels. Triton looks for code here: libtriton_*.so, triton_python_backend_stub.
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
        etag: another one whenever the content is another one.
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
    """

    shared: dict[str, Object] = field(default_factory=dict)
    versions: dict[int, dict[str, Object]] = field(default_factory=dict)


@dataclass
class Listing:
    """What was listed of a repository, and what of it is too much.

    Attributes:
        objects: those that are kept.
        newest: when the last of all was written; None: there is none.
        overfull: folders with too many objects, of which none is kept, and known ones that were not seen.
        beyond: folders of models that are too many, of which none is kept.
        left_out: how many objects that belong nowhere, or to folders beyond those, are not kept.
    """

    objects: list[Object] = field(default_factory=list)
    newest: datetime | None = None
    overfull: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)
    left_out: int = 0


def gather(objects: Iterable[Object], *, known: Collection[str]) -> Listing:
    """Take what is listed, in bounded memory: what one folder has too much of is no other's loss.

    Args:
        objects: as they come.
        known: models that serve, whose folders are kept before others.
    """
    listing, total = Listing(), 0
    strange: set[str] = set()
    folders: dict[str, list[Object]] = {}
    for number, item in enumerate(objects):
        if number >= MAX_OBJECTS:
            listing.overfull |= set(known) - folders.keys()
            break
        listing.newest = max(listing.newest or item.modified, item.modified)
        name, _, rest = item.key.partition("/")
        kept = folders.get(name)
        is_model = (rest or item.key.endswith("/")) and is_model_name(name)
        if kept is None and is_model and (name in known or len(folders) < 2 * MAX_MODELS):
            kept = folders[name] = []
        if kept is None:
            # One of a folder is enough to report it.
            reported = listing.beyond if is_model else strange
            if name not in reported and len(reported) < _STRANGE_SHOWN:
                reported.add(name)
                listing.objects += [] if is_model else [item]
            elif name not in reported:
                listing.left_out += 1
        elif name not in listing.overfull:
            kept.append(item)
            total += 1
            full = name if len(kept) > MAX_FOLDER_OBJECTS else None
            if total > MAX_KEPT_OBJECTS:
                full = max(folders, key=lambda other: (other not in known, len(folders[other])))
            if full is not None:
                listing.overfull.add(full)
                total -= len(folders[full])
                folders[full].clear()
    for kept in folders.values():
        listing.objects += kept
    return listing


def read_layout(objects: Iterable[Object]) -> tuple[dict[str, ModelFolder], dict[str, str]]:
    """Sort a listing.

    Returns:
        Models by name, folders among them that hold nothing of a model, and why a key was ignored, by key; by
        `<name>/` where that is a whole folder.
    """
    models: dict[str, ModelFolder] = {}
    ignored: dict[str, str] = {}
    for item in objects:
        name, *rest = item.key.split("/")
        if not item.key or item.key == SCHEMA_FILE.name or _is_hidden(item.key):
            continue  # what comes with the project; what is being written
        if reason := _find_folder_problem(item, name, rest):
            ignored.setdefault(f"{name}/" if rest or item.link else name, reason)
            continue
        model = models.setdefault(name, ModelFolder())
        # Last is nothing where the key is a folder's own marker.
        if rest[-1] and (reason := _place(item, rest, model)) and len(ignored) < _STRANGE_SHOWN:
            ignored[item.key] = reason
    for name, model in models.items():
        ignored |= _limit(name, model)
    return models, ignored


def _limit(name: str, model: ModelFolder) -> dict[str, str]:
    """Leave out what is too much, in place, the oldest versions first; why, by path."""
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
    return ignored


def limit_models(models: Mapping[str, ModelFolder], known: Collection[str]) -> dict[str, str]:
    """Which models are too many, and why: those that are known stay, then those whose names come first."""
    by_right = sorted(models, key=lambda name: (name not in known, name))
    reason = f"got {len(models)} models, expected at most {MAX_MODELS}"
    return dict.fromkeys(by_right[MAX_MODELS:], reason)


def _is_hidden(key: str) -> bool:
    return any(_HIDDEN.match(segment) for segment in key.split("/"))


def _find_folder_problem(item: Object, name: str, rest: Sequence[str]) -> str | None:
    """Why a file's folder is not a model's; None where it is."""
    if item.link and not rest:
        return "a link, which is never followed: expected the folder itself"
    if not rest:
        return "it belongs to no model: expected <model>/<version>/<file>"
    return find_name_problem(name)


def _place(item: Object, rest: Sequence[str], model: ModelFolder) -> str | None:
    """Put a file where it belongs in its model's folder, or say why it does not belong there."""
    if item.link:
        return "a link: expected the file itself"
    if illegal := [segment for segment in rest if not _is_name(segment, longest=_LONGEST_FILE)]:
        return f"{illegal[0]!r:.80}: expected {_NAME_EXPECTED}"
    match rest:
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
            zeros = ": Triton takes none that begins with 0" if folder.isdecimal() and folder[0] == "0" else ""
            return (
                f"{folder!r}{zeros}: expected {CONFIG}, labels (*.txt, *.csv), configs/*.pbtxt, warmup/*, or a version "
                "1, 2, 3, ..."
            )
    return None


def find_file_problem(name: str) -> str | None:
    """Why a file is no part of a version; None where it is."""
    if _is_name(name, longest=_LONGEST_FILE) and _VERSION_FILE.fullmatch(name):
        return None
    return f"{name!r:.80} is no file of a version: expected {_VERSION_FILES}"


def is_model_folder(name: str) -> bool:
    """Whether a folder of a version may be a model itself: Triton reads `model.onnx` in it, and weights beside that."""
    return name.endswith(".onnx")


def find_missing(names: Collection[str]) -> str | None:
    """What a version without a manifest waits for, as the names of its files show; None: it has a model.

    What export writes comes with a manifest, and that comes last.
    """
    if written := sorted(EXPORTED & set(names)):
        return f"{MANIFEST}: it has {', '.join(written)}, which export writes"
    if not any(name.endswith(MODEL_SUFFIXES) for name in names):
        kinds = ", ".join(f"*{suffix}" for suffix in MODEL_SUFFIXES)
        return f"a model file ({kinds}): it has {', '.join(sorted(names))}"
    return None


def find_name_problem(name: str) -> str | None:
    """Why a folder's name cannot be a model's; None where it can: Triton takes it, and so do we."""
    if _is_name(name, longest=_LONGEST_MODEL):
        return None
    return f"{name!r:.80} is no model's name: expected {_NAME_EXPECTED}, at most {_LONGEST_MODEL} bytes"


def golden_name(profile: str) -> str:
    """File of the golden input with the outputs of a profile, where those differ from FP32's."""
    return f"golden.{profile}.npz"


def is_model_name(name: str) -> bool:
    """Whether a folder of this name is a model's."""
    return find_name_problem(name) is None


def is_exported_name(name: str) -> bool:
    """Whether export gives a model this name: it is legal in S3, Triton, Kubernetes and a URL alike."""
    return _EXPORTED_MODEL.fullmatch(name) is not None


def is_version(segment: str) -> bool:
    """Whether it is a number that Triton takes for a version."""
    return bool(_VERSION.fullmatch(segment)) and len(segment) <= _DIGITS and int(segment) <= _LARGEST_VERSION


def _is_name(segment: str, *, longest: int) -> bool:
    return _NAME.fullmatch(segment) is not None and len(segment.encode()) <= longest
