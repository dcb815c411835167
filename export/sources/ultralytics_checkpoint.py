"""Loads, exports and runs Ultralytics checkpoints (.pt): only this module needs torch and ultralytics.

Which checkpoints may be loaded is decided by `trusted_checkpoints.admit`.
"""

import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.proof.parity import Head
from export.proof.plausibility import Floats
from export.sources.onnx_file import OUTPUTS
from export.sources.ultralytics_tasks import check_task
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
class Checkpoint:
    """A file that Ultralytics runs, to compare an export with.

    Attributes:
        path: a `.pt` file, or an ONNX file that Ultralytics exported.
        name: of the weights, as the user gave it.
        task: as Ultralytics names it.
        nms_free: whether the head that needs no NMS is run, of a checkpoint that has both.
    """

    path: Path
    name: str
    task: str
    nms_free: bool = False

    @property
    def is_network(self) -> bool:
        """Whether it is a network in PyTorch, whose outputs before NMS can be compared."""
        return self.path.suffix != ".onnx"

    def load(self) -> Any:
        """`ultralytics.YOLO` of the file."""
        return _load(self.path, self.name, task=self.task)

    def settings(self, model: Model) -> dict[str, Any]:
        """Arguments of Ultralytics' `predict` for images that are preprocessed as a model is served."""
        width, height = model.input_wh or (0, 0)
        return {
            "imgsz": [height, width],
            "rect": min(model.input.dims) < 0,
            "nms": _nms(self.nms_free),
            "device": "cpu",
            "verbose": False,
        }


def export_onnx(
    checkpoint: Path, folder: Path, *, name: str, imgsz: int | None, nms_free: bool = False
) -> tuple[Path, Checkpoint]:
    """Let Ultralytics export a checkpoint to ONNX, with free batch, height and width.

    Loading a .pt file unpickles it, which runs the code that it holds: only admitted copies come here.

    Args:
        checkpoint: weights.
        folder: for scratch and the ONNX file.
        name: of the weights, as the user gave it.
        imgsz: input size, or None for what it was trained with.
        nms_free: whether the head that needs no NMS is wanted, of a checkpoint that has both.

    Returns:
        The ONNX file, and the copy of the checkpoint that it was made from.

    Raises:
        ExportError: torch is missing, or the file is not a checkpoint of Ultralytics, or has another task or head.
    """
    _need_torch(name)
    copy = folder / "model.pt"  # Ultralytics writes beside the weights
    shutil.copyfile(checkpoint, copy)
    yolo = _load(copy, name)
    check_task(yolo.task, where=name)
    if nms_free and not _has_two_heads(yolo):
        raise ExportError(
            f"{name}: --nms-free: got a checkpoint with one head, which needs NMS, expected YOLO26 or YOLOv10; next: "
            "omit --nms-free (make: NMS_FREE)"
        )
    size = {} if imgsz is None else {"imgsz": imgsz}
    options = {"format": "onnx", "dynamic": True, "simplify": True, "opset": OPSET, "device": "cpu", **size}
    try:
        exported = yolo.export(**options, nms=_nms(nms_free))
    except Exception as exc:  # torch and a network's own code may raise anything
        raise ExportError(f"{name}: Ultralytics does not export it: {first_line(exc)}") from exc
    return Path(exported), Checkpoint(copy, name, yolo.task, nms_free)


def _has_two_heads(yolo: Any) -> bool:
    """Whether one of a network's heads needs no NMS."""
    layers = getattr(yolo.model, "model", None)  # foreign networks have no layers
    return layers is not None and getattr(layers[-1], "one2one_cv2", None) is not None


def open_onnx(file: Path, *, task: str) -> Checkpoint:
    """An ONNX file that Ultralytics exported, to run with its own `predict`, which decodes it by rules of its own.

    Raises:
        ExportError: torch or ultralytics is missing.
    """
    _need_torch(file.name, what="--predict")
    return Checkpoint(file, file.name, task)


def _nms(nms_free: bool) -> bool | None:
    """Ultralytics' argument since 8.4.142: False is the head without NMS, None the one whose boxes need it."""
    return False if nms_free else None


def _need_torch(name: str, *, what: str = "a .pt file") -> None:
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


def _load(checkpoint: Path, name: str, *, task: str | None = None) -> Any:
    _quieten()
    from ultralytics import YOLO  # noqa: PLC0415 - only where a .pt is exported

    try:
        return YOLO(checkpoint, task=task)
    # Unpickling may raise anything that the code of a pickle raises.
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, EOFError, ImportError, OSError) as exc:
        raise ExportError(f"{name}: got no checkpoint of Ultralytics ({first_line(exc)})") from exc


def run_network(checkpoint: Checkpoint) -> Head:
    """The network, FP32 on the CPU, with batch normalisation as it was trained (not folded, as the export has it)."""
    import torch  # noqa: PLC0415 - only where a .pt is exported

    network = checkpoint.load().model.float().eval()
    network.end2end = checkpoint.nms_free

    def run(images: Floats) -> Mapping[str, Floats]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(images))
        while isinstance(outputs, list | tuple) and isinstance(outputs[0], list | tuple):
            outputs = outputs[0]  # the second one is for the training
        tensors = outputs if isinstance(outputs, list | tuple) else [outputs]
        arrays = [np.asarray(tensor.numpy(), np.float32) for tensor in tensors if isinstance(tensor, torch.Tensor)]
        return dict(zip(OUTPUTS, arrays, strict=False))

    return run


def _download(name: str) -> Path:
    """Download by ultralytics, which keeps the file in its weights folder or the working directory."""
    _need_torch(name)
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
