"""Ultralytics weights (.pt): torch and ultralytics are needed here, and only here.

`checkpoints.admit` says which of them may be loaded.
"""

import importlib.util
import os
import re
import shutil
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.parity import Floats, Head

OPSET = 17
_OFFICIAL = re.compile(r"^(yolo|rtdetr)[\w-]*\.pt$")
_DOWNLOADS = "https://github.com/ultralytics/assets/releases"


def find_checkpoint(weights: str) -> Path:
    """A local file, or an official name to be downloaded.

    Raises:
        ExportError: it is neither, or the download failed.
    """
    path = Path(weights)
    if not path.is_file() and (path.name != weights or not _OFFICIAL.match(weights)):
        raise ExportError(f"{path}: there is no such file, and it is no official name such as yolov8n.pt")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ExportError(
            f"{path}: got {path.stat().st_size} bytes that are no PyTorch checkpoint: cut off, or something else?"
        )
    return path if path.is_file() else _download(weights)


def export_onnx(checkpoint: Path, folder: Path, *, name: str, imgsz: int | None) -> tuple[Path, Head]:
    """Let Ultralytics export a checkpoint to ONNX, with free batch, height and width.

    Loading a .pt file unpickles it, which runs whatever code it holds: only what was admitted comes here.

    Args:
        checkpoint: weights of a detector.
        folder: for scratch and the ONNX file.
        name: what the user called it.
        imgsz: input size, or None for what it was trained with.

    Returns:
        The ONNX file, and the checkpoint itself as a function, to prove the file with.

    Raises:
        ExportError: torch is missing, or it is no checkpoint of Ultralytics, or of another task.
    """
    _need_torch(name)
    yolo = _load(checkpoint, name)
    if yolo.task != "detect":
        raise ExportError(f"{name}: task: got {yolo.task!r}, expected 'detect': other tasks are not served yet")
    copy = folder / "model.pt"  # Ultralytics writes beside the weights
    shutil.copyfile(checkpoint, copy)
    size = {} if imgsz is None else {"imgsz": imgsz}
    exported = _load(copy, name).export(format="onnx", dynamic=True, simplify=True, opset=OPSET, device="cpu", **size)
    return Path(exported), _head(yolo)


def _need_torch(name: str) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("ultralytics") is None:
        raise ExportError(
            f"{name}: a .pt file needs torch and ultralytics, which are not installed: "
            f"`make export MODEL=... WEIGHTS={name}` installs them; or pass an ONNX file that Ultralytics exported"
        )


def _load(checkpoint: Path, name: str) -> Any:
    _quieten()
    from ultralytics import YOLO  # noqa: PLC0415 - only where a .pt is exported

    try:
        return YOLO(checkpoint)
    # What unpickling raises is as wide as what a pickle may do.
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, EOFError, ImportError, OSError) as exc:
        raise ExportError(f"{name}: got no checkpoint of Ultralytics ({first_line(exc)})") from exc


def _head(yolo: Any) -> Head:
    """FP32 on the CPU, with batch normalisation as it was trained (not folded, as the exported file has it)."""
    import torch  # noqa: PLC0415 - only where a .pt is exported

    network = yolo.model.float().eval()

    def run(images: Floats) -> Floats:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(images))
        return np.asarray((outputs[0] if isinstance(outputs, list | tuple) else outputs).numpy(), np.float32)

    return run


def _download(name: str) -> Path:
    """By ultralytics, which keeps it in its weights folder or the working directory."""
    _need_torch(name)
    _quieten()
    try:
        socket.create_connection(("github.com", 443), timeout=5).close()
    except OSError as exc:
        raise ExportError(
            f"{name}: there is no such file here, and it cannot be downloaded ({exc}): get {name} from {_DOWNLOADS} on "
            f"a machine with a network, and pass its path: WEIGHTS=/path/to/{name}"
        ) from exc
    from ultralytics.utils.downloads import attempt_download_asset  # noqa: PLC0415 - only where a .pt is exported

    try:
        path = Path(attempt_download_asset(name, retry=1, progress=True))
    except (OSError, RuntimeError) as exc:
        raise ExportError(f"{name}: the download failed ({exc}): get it from {_DOWNLOADS} and pass its path") from exc
    if not path.is_file():
        raise ExportError(f"{name}: Ultralytics has no such file ({_DOWNLOADS}): pass the path of yours")
    return path


def _quieten() -> None:
    """Ultralytics reads these when it is imported: no chatter, no packages installed behind the user's back."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ["YOLO_AUTOINSTALL"] = "false"
