"""Loads, exports and runs Ultralytics checkpoints (.pt): only this module needs torch and ultralytics.

Which checkpoints may be loaded is decided by `trusted_checkpoints.admit`.
"""

import importlib.util
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.graph.head import check_head
from export.proof.drawn_images import NamedImage
from export.proof.parity import Head
from export.proof.plausibility import Floats
from export.proof.predictions import IOU, MAX_DETECTIONS, Predict
from transformer.tasks.objects import Detections
from transformer.triton.model import Model

OPSET = 17
_DOWNLOADS = "https://github.com/ultralytics/assets/releases"


def find_checkpoint(weights: str) -> Path:
    """A local file, or an official name that is downloaded; `weights_file.check_weights` has accepted it.

    Raises:
        ExportError: the download failed.
    """
    path = Path(weights)
    return path if path.is_file() else _download(weights)


@dataclass(frozen=True)
class Program:
    """A checkpoint as Ultralytics runs it, to compare an export with.

    Attributes:
        head: the network: its output before NMS.
        predict: the whole program: an image in, detections out; None without Ultralytics.
    """

    head: Head
    predict: Predict | None


def export_onnx(
    checkpoint: Path, folder: Path, *, name: str, imgsz: int | None, nms_free: bool = False
) -> tuple[Path, Callable[[Model], Program]]:
    """Let Ultralytics export a checkpoint to ONNX, with free batch, height and width.

    Loading a .pt file unpickles it, which runs the code that it holds: only admitted copies come here.

    Args:
        checkpoint: weights of a detector.
        folder: for scratch and the ONNX file.
        name: of the weights, as the user gave it.
        imgsz: input size, or None for what it was trained with.
        nms_free: whether the head that needs no NMS is wanted, of a checkpoint that has both.

    Returns:
        The ONNX file, and a function that makes a program of the checkpoint, with the preprocessing of a model.

    Raises:
        ExportError: torch is missing, or the file is not a checkpoint of Ultralytics, or has another task or head.
    """
    need_torch(name)
    yolo = load(checkpoint, name)
    head = yolo.model.model[-1] if hasattr(yolo.model, "model") else yolo.model  # foreign networks have no layers
    check_head({"task": yolo.task, "head": type(head).__name__}, where=name)
    if nms_free and getattr(head, "one2one_cv2", None) is None:
        raise ExportError(
            f"{name}: --nms-free: got a checkpoint with one head, which needs NMS, expected YOLO26 or YOLOv10; next: "
            "omit --nms-free (make: NMS_FREE)"
        )
    exported = write_onnx(checkpoint, folder, name=name, imgsz=imgsz, nms=_nms(nms_free))
    copy = exported.with_suffix(".pt")
    return exported, lambda model: Program(_head(yolo, nms_free), _predict(load(copy, name), model, nms_free))


def write_onnx(checkpoint: Path, folder: Path, *, name: str, imgsz: int | None, **options: Any) -> Path:
    """Let Ultralytics export a checkpoint to ONNX, with free batch, height and width.

    Args:
        checkpoint: admitted.
        folder: for the ONNX file, and a copy of the checkpoint beside it.
        name: of the weights, as the user gave it.
        imgsz: input size, or None for what it was trained with.
        options: further arguments of Ultralytics' `export`.

    Raises:
        ExportError: Ultralytics does not export it.
    """
    copy = folder / "model.pt"  # Ultralytics writes beside the weights
    shutil.copyfile(checkpoint, copy)
    size = {} if imgsz is None else {"imgsz": imgsz}
    fixed = {"format": "onnx", "dynamic": True, "simplify": True, "opset": OPSET, "device": "cpu", **size}
    try:
        return Path(load(copy, name).export(**fixed, **options))
    except Exception as exc:  # torch and a network's own code may raise anything
        raise ExportError(f"{name}: Ultralytics does not export it: {first_line(exc)}") from exc


def predict_onnx(file: Path, *, name: str) -> Callable[[Model], Predict]:
    """Ultralytics' own `predict` with an ONNX file, which it decodes by rules of its own.

    Args:
        file: an ONNX file that Ultralytics exported.
        name: of the weights, as the user gave it.

    Returns:
        A function that makes `predict` of the file, with the preprocessing of a model.

    Raises:
        ExportError: torch or ultralytics is missing.
    """
    need_torch(name, what="--predict")
    return lambda model: _predict(load(file, name, task="detect"), model, nms_free=False)


def _nms(nms_free: bool) -> bool | None:
    """Ultralytics' argument since 8.4.142: False is the head without NMS, None the one whose boxes need it."""
    return False if nms_free else None


def need_torch(name: str, *, what: str = "a .pt file") -> None:
    """Check that torch and ultralytics are installed; `what` needs them.

    Raises:
        ExportError: one is missing.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("ultralytics") is None:
        install, instead = (
            ("", "pass an ONNX file that Ultralytics exported")
            if what == "a .pt file"
            else (" PREDICT=1", f"omit {what}")
        )
        raise ExportError(
            f"{name}: {what} needs torch and ultralytics, which are not installed: "
            f"`make export MODEL=... WEIGHTS={name}{install}` installs them; or {instead}"
        )


def load(checkpoint: Path, name: str, *, task: str | None = None) -> Any:
    """Load a checkpoint that was admitted, or an ONNX file, by Ultralytics.

    Raises:
        ExportError: it is another file.
    """
    _quieten()
    from ultralytics import YOLO  # noqa: PLC0415 - only where a .pt is exported

    try:
        return YOLO(checkpoint, task=task)
    # Unpickling may raise anything that the code of a pickle raises.
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, EOFError, ImportError, OSError) as exc:
        raise ExportError(f"{name}: got no checkpoint of Ultralytics ({first_line(exc)})") from exc


def _head(yolo: Any, nms_free: bool) -> Head:
    """FP32 on the CPU, with batch normalisation as it was trained (not folded, as the exported file has it)."""
    import torch  # noqa: PLC0415 - only where a .pt is exported

    network = yolo.model.float().eval()
    network.end2end = nms_free

    def run(images: Floats) -> Floats:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(images))
        return np.asarray((outputs[0] if isinstance(outputs, list | tuple) else outputs).numpy(), np.float32)

    return run


def _predict(yolo: Any, model: Model, nms_free: bool) -> Predict:
    """Ultralytics' own `predict`, letterboxed as the model is served."""
    width, height = model.input_wh or (0, 0)
    is_free = min(model.input.dims) < 0

    def run(image: NamedImage, confidence: float) -> Detections:
        try:
            (result,) = yolo.predict(
                np.ascontiguousarray(image.image_hwc[..., ::-1]),  # it takes BGR
                imgsz=[height, width],
                rect=is_free,
                conf=confidence,
                iou=IOU,
                max_det=MAX_DETECTIONS,
                nms=_nms(nms_free),
                device="cpu",
                verbose=False,
            )
        except Exception as exc:  # torch, ONNX Runtime and a network's own code may raise anything
            raise ExportError(f"Ultralytics' predict fails on image {image.name}: {first_line(exc)}") from exc
        found = result.boxes
        return Detections(found.xyxy.numpy(), found.conf.numpy(), found.cls.numpy().astype(np.int64))

    return run


def _download(name: str) -> Path:
    """Download by ultralytics, which keeps the file in its weights folder or the working directory."""
    need_torch(name)
    _quieten()
    try:
        socket.create_connection(("github.com", 443), timeout=5).close()
    except OSError as exc:
        raise ExportError(
            f"{name}: the file is missing, and it cannot be downloaded ({exc}): download {name} from {_DOWNLOADS} on "
            f"a machine with a network, and pass its path: WEIGHTS=/path/to/{name}"
        ) from exc
    from ultralytics.utils.downloads import attempt_download_asset  # noqa: PLC0415 - only where a .pt is exported

    try:
        path = Path(attempt_download_asset(name, retry=1, progress=True))
    except (OSError, RuntimeError) as exc:
        raise ExportError(f"{name}: the download failed ({exc}): get it from {_DOWNLOADS} and pass its path") from exc
    if not path.is_file():
        raise ExportError(f"{name}: Ultralytics offers no such file ({_DOWNLOADS}); next: pass the path of a file")
    return path


def _quieten() -> None:
    """Set the environment variables that Ultralytics reads at import: no messages, no installation of packages."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ["YOLO_AUTOINSTALL"] = "false"
