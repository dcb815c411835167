"""What a run needs before its first turn: weights, images, exports, a model repository."""

import importlib.util
import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtest.compare.candidates import MODEL
from loadtest.compare.processes import ROOT

DATA = ROOT.parent / "shared" / "data"
FOLDER = ROOT / ".cache" / "compare"
REPOSITORY = FOLDER / "repository"
_TABLE = ROOT / "model_repository" / "iris"
_LARGE_PIXELS = 12_000_000
_GREY = 114  # Ultralytics' padding


class PreparationError(Exception):
    """The run cannot begin; the message says what is missing and what to do next."""


@dataclass(frozen=True)
class Materials:
    """What every candidate gets.

    Attributes:
        image, large: encoded.
        images: encoded, by name, for the agreement.
        labels: files with COCO's boxes of these images, by name; empty where there are none.
        sizes_wh: of these images.
        weights: the .pt file.
        exports: exports.json.
    """

    image: bytes
    large: bytes
    images: Mapping[str, bytes]
    labels: Mapping[str, Path]
    sizes_wh: Mapping[str, tuple[int, int]]
    weights: str
    exports: Mapping[str, Any]


def prepare(weights: str, image: str, export_options: str, *, unpickling: bool = False) -> Materials:
    """Export and read what is missing.

    Args:
        weights: a .pt file, an official name, or empty.
        image: a file, or empty.
        export_options: more arguments of `python -m export ultralytics`.
        unpickling: whether unofficial weights are loaded too, which runs the code that they contain.

    Raises:
        PreparationError: something is missing, or an export failed.
    """
    chosen, paths, photos = _find_images(image)
    if not list(_TABLE.glob("*/model.onnx")):
        raise PreparationError(f"{_TABLE}: no version; next: make models")
    allowed = ["--allow-unpickling"] if unpickling else []
    exports = _export_baselines(_find_weights(weights), chosen, paths, allowed)
    _export_nereid(exports["weights"], [*shlex.split(export_options), *allowed])
    content = chosen.read_bytes()
    images = {path.name: path.read_bytes() for path in paths}
    labelled = photos if len(exports["names"]) == 80 else []  # the labels are COCO's
    return Materials(
        image=content,
        large=enlarge(content),
        images=images,
        labels={path.name: DATA / "coco128" / "labels" / f"{path.stem}.txt" for path in labelled},
        sizes_wh={name: Image.open(io.BytesIO(encoded)).size for name, encoded in images.items()},
        weights=exports["weights"],
        exports=exports,
    )


def _find_images(image: str) -> tuple[Path, list[Path], list[Path]]:
    """The image to measure with, all images for the agreement, and those of them that have labels."""
    found = importlib.util.find_spec("ultralytics")
    if found is None or found.origin is None:
        raise PreparationError("ultralytics is not installed; next: make compare, which installs it")
    assets = sorted((Path(found.origin).parent / "assets").glob("*.jpg"))
    chosen = Path(image) if image else next(path for path in assets if path.name == "bus.jpg")
    if not chosen.is_file():
        raise PreparationError(f"PICTURE: {chosen} is not a file; expected a JPEG")
    photos = sorted((DATA / "coco128" / "images").glob("*.jpg"))
    return chosen, list({path.name: path for path in (*photos, *assets, chosen)}.values()), photos


def _find_weights(weights: str) -> str:
    shipped = DATA / "weights" / "yolov8n.pt"
    if weights or not shipped.exists():
        return weights or "yolov8n.pt"
    return str(shipped)


def _export_baselines(weights: str, image: Path, images: Sequence[Path], allowed: Sequence[str]) -> Any:
    options = ["--weights", weights, *allowed, "--output", str(FOLDER), "--picture", str(image.absolute())]
    _run("loadtest.compare.baselines.exports", [*options, *map(str, images)], f"WEIGHTS: {weights}")
    return json.loads((FOLDER / "exports.json").read_bytes())


def _export_nereid(weights: str, options: Sequence[str]) -> None:
    """Always again: it must be what this commit exports."""
    shutil.rmtree(REPOSITORY, ignore_errors=True)
    REPOSITORY.mkdir(parents=True)
    shutil.copytree(_TABLE, REPOSITORY / _TABLE.name)
    arguments = ["ultralytics", MODEL, weights, "--repository", str(REPOSITORY), *options]
    _run("export", arguments, f"python -m export ultralytics {weights}")


def _run(module: str, arguments: Sequence[str], what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last_line = (done.stdout + done.stderr).strip().splitlines()[-1:]
        reason = "".join(last_line).removeprefix("error: ")
        raise PreparationError(f"{what}: {reason}; next: make compare WEIGHTS=<a YOLOv8 .pt file>")


def enlarge(encoded: bytes) -> bytes:
    """The same image with 12 megapixels, as JPEG."""
    with Image.open(io.BytesIO(encoded)) as image:
        factor = (_LARGE_PIXELS / (image.width * image.height)) ** 0.5
        size = round(image.width * factor), round(image.height * factor)
        output = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(output, "JPEG", quality=90)
    return output.getvalue()


def letterbox(encoded: bytes, size: int, stride: int) -> NDArray[np.uint8]:
    """An image as the bare model takes it: `(1, height, width, 3)`, the smallest rectangle of whole strides."""
    with Image.open(io.BytesIO(encoded)) as image:
        factor = min(size / image.width, size / image.height)
        width, height = round(image.width * factor), round(image.height * factor)
        inner = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    padded = np.full((1, -(-height // stride) * stride, -(-width // stride) * stride, 3), _GREY, np.uint8)
    top, left = (padded.shape[1] - height) // 2, (padded.shape[2] - width) // 2
    padded[0, top : top + height, left : left + width] = inner
    return padded
