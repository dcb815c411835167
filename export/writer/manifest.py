"""manifest.json of an exported version, and legal names of models; the schema file defines both."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal

from export.errors import ExportError
from registry.errors import VersionRejected
from registry.layout import SCHEMA, find_name_problem, is_exported_name

Interface = Literal["fused", "ultralytics"]


@dataclass(frozen=True)
class Source:
    """The file that a model is made from.

    Attributes:
        name: file name, without its folder.
        sha256: digest of the content, hexadecimal.
    """

    name: str
    sha256: str


def digest(*paths: Path) -> str:
    """SHA-256 of the content of files, one after the other."""
    content = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
    return content.hexdigest()


def check_model_name(name: str) -> str:
    """Return the name of a new model, where it is legal in S3, Triton, Kubernetes and a URL alike.

    Raises:
        ExportError: it is not legal.
    """
    if not is_exported_name(name):
        pattern = SCHEMA["$defs"]["model_name"]["pattern"]
        raise ExportError(
            f"model name: got {name!r}, expected lower-case letters, digits and hyphens, a letter first, at most 63 "
            f"({pattern}): it has to be legal in S3, Triton and Kubernetes alike"
        )
    return name


def check_known_name(name: str) -> str:
    """Return the name of a model that a repository may have, where Triton accepts it.

    Raises:
        ExportError: it is not legal.
    """
    if reason := find_name_problem(name):
        raise ExportError(f"model name: {reason}")
    return name


def describe(  # noqa: PLR0913 - one argument for each fact
    *,
    model: str,
    version: int,
    task: str,
    interface: Interface | None,
    source: Source,
    folder: Path,
    precisions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Manifest of a version folder that has all its other files.

    Raises:
        jsonschema.ValidationError: a defect of export: it does not fit the schema.
    """
    import jsonschema  # noqa: PLC0415 - a quarter of a second that a warm start need not pay

    manifest: dict[str, Any] = {
        "model": model,
        "version": str(version),
        "task": task,
        **({"interface": interface} if interface else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {"name": source.name, "sha256": source.sha256},
        "tools": {package: version_of(package) for package in ("onnx", "onnxruntime", "numpy")},
        **({"precisions": dict(precisions)} if precisions else {}),
        "files": list_files(folder),
    }
    jsonschema.validate(manifest, SCHEMA, cls=jsonschema.Draft202012Validator)
    return manifest


def list_files(folder: Path) -> dict[str, Any]:
    """Entries of the manifest for all files of a folder."""
    return {path.name: {"sha256": digest(path), "size_bytes": path.stat().st_size} for path in sorted(folder.iterdir())}


def read(data: bytes) -> dict[str, Any] | None:
    """Content of a manifest.json, or None where it does not fit the schema."""
    from registry.manifest import read_content  # noqa: PLC0415 - as above

    try:
        return read_content(data, where="manifest.json")
    except VersionRejected:
        return None
