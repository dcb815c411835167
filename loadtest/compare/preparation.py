"""What a run needs before its first turn: weights, pictures, exports, a model repository."""

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
    """The run cannot begin; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Materials:
    """What everyone is given.

    Attributes:
        picture, large: encoded.
        pictures: encoded, by name, for the agreement.
        labels: files with COCO's boxes of these, by name; empty where there are none.
        sizes_wh: of these.
        weights: the .pt file.
        exports: exports.json.
    """

    picture: bytes
    large: bytes
    pictures: Mapping[str, bytes]
    labels: Mapping[str, Path]
    sizes_wh: Mapping[str, tuple[int, int]]
    weights: str
    exports: Mapping[str, Any]


def prepare(weights: str, picture: str, export_options: str, *, unpickling: bool = False) -> Materials:
    """Make what is missing.

    Args:
        weights: a .pt file, an official name, or empty.
        picture: a file, or empty.
        export_options: more arguments of `python -m export ultralytics`.
        unpickling: whether weights that are not official are loaded too, which runs whatever code they hold.

    Raises:
        PreparationError: something is not there, or an export failed.
    """
    found = importlib.util.find_spec("ultralytics")
    if found is None or found.origin is None:
        raise PreparationError("ultralytics is not installed; next: make compare, which installs it")
    if not list(_TABLE.glob("*/model.onnx")):
        raise PreparationError(f"{_TABLE}: no version; next: make models")
    assets = sorted((Path(found.origin).parent / "assets").glob("*.jpg"))
    chosen = Path(picture) if picture else next(path for path in assets if path.name == "bus.jpg")
    if not chosen.is_file():
        raise PreparationError(f"PICTURE: {chosen} is no file; expected a JPEG")
    photos = sorted((DATA / "coco128" / "images").glob("*.jpg"))
    paths = list({path.name: path for path in (*photos, *assets, chosen)}.values())
    allowed = ["--allow-unpickling"] if unpickling else []
    exports = _export_baselines(_find_weights(weights), chosen, paths, allowed)
    _export_nereid(exports["weights"], [*shlex.split(export_options), *allowed])
    content = chosen.read_bytes()
    pictures = {path.name: path.read_bytes() for path in paths}
    labelled = [path for path in photos if len(exports["names"]) == 80]  # the labels are COCO's
    return Materials(
        picture=content,
        large=enlarge(content),
        pictures=pictures,
        labels={path.name: DATA / "coco128" / "labels" / f"{path.stem}.txt" for path in labelled},
        sizes_wh={name: Image.open(io.BytesIO(encoded)).size for name, encoded in pictures.items()},
        weights=exports["weights"],
        exports=exports,
    )


def _find_weights(weights: str) -> str:
    shipped = DATA / "weights" / "yolov8n.pt"
    if weights or not shipped.exists():
        return weights or "yolov8n.pt"
    return str(shipped)


def _export_baselines(weights: str, picture: Path, pictures: Sequence[Path], allowed: Sequence[str]) -> Any:
    options = ["--weights", weights, *allowed, "--output", str(FOLDER), "--picture", str(picture.absolute())]
    _run("loadtest.baselines.exports", [*options, *map(str, pictures)], f"WEIGHTS: {weights}")
    return json.loads((FOLDER / "exports.json").read_bytes())


def _export_nereid(weights: str, options: Sequence[str]) -> None:
    """Always anew: it must be what this commit exports."""
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
        said = (done.stdout + done.stderr).strip().splitlines()[-1:]  # the rest is what led there
        reason = "".join(said).removeprefix("error: ")
        raise PreparationError(f"{what}: {reason}; next: make compare WEIGHTS=<a YOLOv8 .pt file>")


def enlarge(encoded: bytes) -> bytes:
    """The same picture with 12 megapixels, as JPEG."""
    with Image.open(io.BytesIO(encoded)) as picture:
        factor = (_LARGE_PIXELS / (picture.width * picture.height)) ** 0.5
        size = round(picture.width * factor), round(picture.height * factor)
        output = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(output, "JPEG", quality=90)
    return output.getvalue()


def letterbox(encoded: bytes, size: int, stride: int) -> NDArray[np.uint8]:
    """A picture as the bare model takes it: `(1, height, width, 3)`, the smallest rectangle of whole strides."""
    with Image.open(io.BytesIO(encoded)) as picture:
        factor = min(size / picture.width, size / picture.height)
        width, height = round(picture.width * factor), round(picture.height * factor)
        inner = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    padded = np.full((1, -(-height // stride) * stride, -(-width // stride) * stride, 3), _GREY, np.uint8)
    top, left = (padded.shape[1] - height) // 2, (padded.shape[2] - width) // 2
    padded[0, top : top + height, left : left + width] = inner
    return padded
