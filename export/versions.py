"""The version folders of a model in a local repository."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.manifest import digest


def numbers(model: Path) -> list[int]:
    """Numbers of the version folders in a model's folder, which need not exist."""
    if not model.is_dir():
        return []
    return [int(entry.name) for entry in model.iterdir() if entry.name.isascii() and entry.name.isdigit()]


def latest(model: Path) -> Path | None:
    """Folder of the highest version, or None."""
    return model / str(max(found)) if (found := numbers(model)) else None


def read_complete(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a version whose files are all there, byte for byte, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        listed = manifest["files"].items()
        complete = all(digest(folder / name) == entry["sha256"] for name, entry in listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None
