"""Reads how images were prepared for a model from the JSON files that Hugging Face and timm keep beside their weights.

preprocessor_config.json   of transformers: size, crop_size, resample, rescale_factor, image_mean, image_std
config.json                of timm: pretrained_cfg; of transformers: id2label, the names of the classes
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from export.errors import ExportError

_FILE_BYTES = 16 * 2**20
_LABELS = "config.json"


def read_preprocessor(path: Path) -> dict[str, Any]:
    """Options of `python -m export onnx --task classify`, as a file has them.

    Returns:
        Some of `fit`, `size`, `crop`, `interpolation`, `scale`, `mean`, `std`, `labels`, as `onnx_classifier.Options`.

    Raises:
        ExportError: the file is missing or of neither kind, or has a step that is not served.
    """
    document = _read_json(path)
    if not isinstance(document, Mapping):
        raise ExportError(f"{path}: got a {type(document).__name__}, expected an object as in preprocessor_config.json")
    if "pretrained_cfg" in document or {"input_size", "crop_pct"} <= document.keys():
        options = _read_timm(document.get("pretrained_cfg", document), path)
        names = document.get("label_names")
        return options | ({"labels": [str(name) for name in names]} if isinstance(names, list) else {})
    if {"image_mean", "size", "do_resize", "do_normalize"} & document.keys():
        labels = _find_labels(path.parent / _LABELS)
        return _read_transformers(document, path) | ({"labels": labels} if labels else {})
    raise ExportError(
        f"{path}: got {', '.join(sorted(map(str, document))[:8])}, expected preprocessor_config.json of transformers "
        "or config.json of timm; next: --size, --crop, --mean and --std"
    )


def read_labels(text: str) -> list[str]:
    """Names of classes: of a file, a line each or JSON, or words between commas.

    JSON is a list, an object by index (also with pairs, as Keras' imagenet_class_index.json), or config.json of
    transformers.

    Raises:
        ExportError: the file is of another kind, or a name is missing.
    """
    path = Path(text)
    if not path.is_file():
        if path.suffix in {".txt", ".json", ".names", ".csv"} or "/" in text:
            raise ExportError(f"--labels: {path}: the file is missing")
        return [name.strip() for name in text.split(",")]
    if path.suffix == ".json":
        return _labels_of(_read_json(path), path)
    if path.stat().st_size > _FILE_BYTES:
        raise ExportError(f"--labels {path}: got {path.stat().st_size} bytes, expected at most {_FILE_BYTES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        raise ExportError(f"--labels {path}: got no UTF-8 ({exc.reason}), expected a name on each line") from exc
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def _labels_of(document: Any, path: Path) -> list[str]:
    if isinstance(document, Mapping) and isinstance(document.get("id2label"), Mapping):
        document = document["id2label"]
    if isinstance(document, Mapping):
        try:
            numbered = {int(index): name for index, name in document.items()}
        except ValueError:
            numbered = {}
        if sorted(numbered) != list(range(len(document))):
            raise ExportError(f"--labels {path}: got keys that are not 0, 1, 2, ..., expected names by index")
        document = [numbered[index] for index in sorted(numbered)]
    if not isinstance(document, list):
        raise ExportError(f"--labels {path}: got a {type(document).__name__}, expected a list, or names by index")
    return [str(name[-1] if isinstance(name, list) and name else name) for name in document]


def _find_labels(path: Path) -> list[str] | None:
    document = _read_json(path) if path.is_file() else {}
    return _labels_of(document, path) if isinstance(document, Mapping) and "id2label" in document else None


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise ExportError(f"{path}: got {path.stat().st_size} bytes, expected at most {_FILE_BYTES}")
        return json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise ExportError(f"{path}: the file is missing") from exc
    except (ValueError, RecursionError) as exc:
        raise ExportError(f"{path}: got no JSON ({exc})") from exc


def _read_timm(own: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`pretrained_cfg`; as `timm.data.create_transform` reads it."""
    try:
        _, height, width = own["input_size"]
        scaled = [math.floor(side / own.get("crop_pct", 0.875)) for side in (height, width)]
        mode = own.get("crop_mode", "center")
        if mode not in {"center", "squash"} or (mode == "center" and height != width):
            raise ExportError(
                f"{path}: crop_mode: got {mode!r} for {height}x{width}, expected 'center' of a square, or 'squash'"
            )
        return {
            "fit": "stretch" if mode == "squash" else "shortest",
            "size": scaled if mode == "squash" else scaled[0],
            "crop": [height, width],
            "interpolation": str(own.get("interpolation", "bicubic")),
            "scale": 1 / 255,
            "mean": [float(number) for number in own["mean"]],
            "std": [float(number) for number in own["std"]],
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as exc:
        raise ExportError(f"{path}: pretrained_cfg: {exc!r}, expected input_size, mean and std") from exc


def _read_transformers(own: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`preprocessor_config.json`; as the image processors of transformers read it."""
    if own.get("rescale_offset") or own.get("do_pad"):
        raise ExportError(f"{path}: got rescale_offset or do_pad, which is not served; next: --size, --mean and --std")
    options: dict[str, Any] = {}
    try:
        if own.get("do_resize", True) and "size" in own:
            options |= _read_size(own)
        if own.get("do_center_crop") and "crop_size" in own:
            options["crop"] = _sides(own["crop_size"])
        options["interpolation"] = Resampling(own.get("resample", 2)).name.lower()
        options["scale"] = float(own.get("rescale_factor", 1 / 255)) if own.get("do_rescale", True) else 1.0
        normalises = own.get("do_normalize", True)
        options["mean"] = [float(number) for number in own["image_mean"]] if normalises else [0.0]
        options["std"] = [float(number) for number in own["image_std"]] if normalises else [1.0]
    except (KeyError, TypeError, ValueError) as exc:
        raise ExportError(f"{path}: {exc!r}, expected size, resample, image_mean and image_std") from exc
    return options


def _read_size(own: Mapping[str, Any]) -> dict[str, Any]:
    size = own["size"]
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if isinstance(size, Mapping) and edge is None:
        return {"fit": "stretch", "size": _sides(size)}
    if edge is None:
        return {"fit": "stretch", "size": [int(size), int(size)]}
    if "crop_pct" not in own or own["crop_pct"] is None:
        return {"fit": "shortest", "size": int(edge)}
    # ConvNeXt: up to 384 the shorter side and a crop, above that both sides.
    if edge >= 384:
        return {"fit": "stretch", "size": [int(edge), int(edge)]}
    return {"fit": "shortest", "size": int(edge / own["crop_pct"]), "crop": [int(edge), int(edge)]}


def _sides(size: Any) -> list[int]:
    return [int(size["height"]), int(size["width"])] if isinstance(size, Mapping) else [int(size), int(size)]
