"""Judges a model repository that Triton reads directly, without a synchroniser."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from predictor.errors import StartError
from registry import config as configs
from registry.errors import Incomplete, StorageError, VersionRejected
from registry.judgement.version import Terms, Texts, judge_config, judge_texts, judge_version, read_texts
from registry.layout import CONFIG, TEXT_BYTES, ModelFolder, read_layout
from registry.storage.reading import FolderStorage, read

_MAX_SHOWN = 20  # files that belong to no model

Verdict = tuple[str, str | None]  # path in the repository; why it must not serve, or None where it may


def judge_repository(root: Path, *, profile: str, plans: bool) -> Iterator[Verdict]:
    """Judge everything that Triton would read.

    Args:
        root: the folder.
        profile: `--model-config-name` of the Triton that reads the folder.
        plans: whether TensorRT plans may be loaded.

    Yields:
        A verdict for each version, and for each invalid config and each file that belongs to no model.

    Raises:
        StartError: the folder is missing, or cannot be read.
    """
    storage = FolderStorage(root, hidden=True)
    try:
        objects = list(storage.walk())
    except StorageError as exc:
        raise StartError(str(exc)) from exc
    hidden = {item.key for item in objects if any(part.startswith(".") for part in item.key.split("/")[:-1])}
    models, ignored = read_layout(item for item in objects if item.key not in hidden)
    strange = ignored | dict.fromkeys(hidden, "in a hidden folder, which Triton reads: expected none")
    yield from sorted(strange.items())[:_MAX_SHOWN]
    if len(strange) > _MAX_SHOWN:
        yield "...", f"{len(strange) - _MAX_SHOWN} more files that belong to no model"
    for name, model in sorted(models.items()):
        yield from _judge_model(root, storage, name, model, Terms(profile, plans=plans))


def _judge_model(root: Path, storage: FolderStorage, name: str, model: ModelFolder, terms: Terms) -> Iterator[Verdict]:
    """Judge the configs that Triton may read, then the versions."""
    read_by_triton = {CONFIG, f"configs/{terms.profile}.pbtxt"}
    judged = {}
    for path, item in sorted(model.shared.items()):
        if path == CONFIG or path.startswith("configs/"):
            try:
                config = judge_config(read(storage, item, limit=TEXT_BYTES), where=path)
                if path in read_by_triton:
                    configs.check_formats(configs.resolve(ModelConfig.FromString(config)), plans=terms.plans)
                    judged[path] = config
            except (VersionRejected, StorageError, OSError) as exc:
                yield f"{name}/{path}", str(exc)
    own = judged.get(f"configs/{terms.profile}.pbtxt") or judged.get(CONFIG, b"")
    for version in sorted(model.versions):
        yield f"{name}/{version}", _judge_version(root / name / str(version), own, terms)


def _judge_version(folder: Path, own: bytes, terms: Terms) -> str | None:
    try:
        texts = read_texts(folder)
        texts = Texts(texts.own, model=own, files=texts.files)
        _check_digests(folder, texts, terms)
        judge_version(folder, texts, terms)
        # Triton may load any file that it finds where the config, or that of another profile, does not name one.
        if not terms.plans and (found := sorted(path.name for path in folder.glob("*.plan"))):
            raise VersionRejected(f"{found[0]}: a plan is code, expected none, or PREDICTOR_PLANS=true")
    except (VersionRejected, Incomplete, OSError) as exc:
        return str(exc)
    return None


def _check_digests(folder: Path, texts: Texts, terms: Terms) -> None:
    for name, entry in (judge_texts(texts, terms) or {}).items():
        path = folder / name
        if not path.exists():
            raise Incomplete(f"{name} is missing, which its manifest.json lists")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry.sha256:
            raise VersionRejected(
                f"{name}: sha256 got {digest[:12]}..., expected {entry.sha256[:12]}... by manifest.json"
            )


def report(verdicts: Iterator[Verdict]) -> Mapping[bool, int]:
    """Print each verdict, and return the number of valid and of invalid parts."""
    counts = {True: 0, False: 0}
    for path, reason in verdicts:
        good = reason is None
        counts[good] += 1
        print(f"{'good    ' if good else 'rejected'} {path!r:.200}{'' if good else f': {reason}'}")
    return counts
