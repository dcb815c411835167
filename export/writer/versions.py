"""The version folders of a model in a local repository."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.writer.manifest import digest
from registry.errors import RepositoryError

_FIGURES = (
    "boxes_px",
    "scores",
    "classes",
    "masks",
    "keypoints_px",
    "visibility",
    "angles",
    "probabilities",
    "values",
    "accuracy",
    "accuracy_plain",
    "accuracy_rendered",
    "pixels_apart",
    "relative",
)
# What the cost of a precision is measured by, by its key in the manifest.
_METRICS = {"map50_95": "mAP50-95", "top1": "top-1", "miou": "mIoU", "relative_error": "relative error"}


def numbers(model: Path) -> list[int]:
    """Numbers of the version folders in a model's folder, which need not exist."""
    if not model.is_dir():
        return []
    return [int(entry.name) for entry in model.iterdir() if entry.name.isascii() and entry.name.isdigit()]


def latest(model: Path) -> Path | None:
    """Folder of the highest version, or None."""
    return model / str(max(found)) if (found := numbers(model)) else None


def read_complete(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a version, or None where one of its files is missing or has other bytes."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        listed = manifest["files"].items()
        complete = all(digest(folder / name) == entry["sha256"] for name, entry in listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def judge(folder: Path, *, where: str) -> None:
    """Check a version as the synchroniser does; a cluster may permit TensorRT plans or not.

    Args:
        folder: of the version.
        where: names it in messages.

    Raises:
        ExportError: the synchroniser would reject it.
    """
    # Half a second, which other commands save; and the Python of NVIDIA's image lacks these packages.
    from registry.judgement.sandbox_process import Defect  # noqa: PLC0415
    from registry.judgement.version import Terms, judge_version, read_texts  # noqa: PLC0415

    try:
        judge_version(folder, read_texts(folder), Terms(plans=True))
    except (RepositoryError, Defect, OSError) as exc:
        raise ExportError(f"{where}: {exc}; no synchroniser takes it; next: export it again") from exc


def difference(parity: Mapping[str, Any]) -> str:
    """The difference of a version from its source, as tables show it; `parity` is the content of parity.json."""
    return ", ".join(
        f"{figure} {parity[figure]}" if "acc" in figure else f"{figure} {parity[figure]:.2g}"
        for figure in _FIGURES
        if isinstance(parity.get(figure), int | float)
    )


def costs(manifest: Mapping[str, Any]) -> str:
    """The metric of a version's task, of FP32 and of each precision: a line for each, as tables show it."""
    lines: list[str] = []
    for precision, cost in manifest.get("precisions", {}).items():
        key = next(key for key in _METRICS if key in cost)
        kind = cost.get("metric", "box")
        lines = lines or [f"{_METRICS[key]}{'' if kind == 'box' else f' of {kind}'}", f"fp32 {cost['fp32']:.4f}"]
        lines.append(f"{precision} {cost[key]:.4f}")
    return "\n".join(lines) or "-"
