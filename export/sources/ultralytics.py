"""Turns what Ultralytics trained or exported into a verified version."""

import tempfile
from pathlib import Path

from export.errors import ExportError
from export.proof.precision import Track
from export.sources.choice import Choice, Reporter, Say
from export.sources.exported_detector import read_texts
from export.sources.onnx_file import read_onnx
from export.sources.trusted_checkpoints import CheckpointError, admit
from export.sources.ultralytics_checkpoint import export_onnx, find_checkpoint, open_onnx
from export.sources.ultralytics_engine import import_engine
from export.sources.ultralytics_tasks import File, check_task, find_preparer
from export.sources.weights_file import check_weights
from export.writer.manifest import Source, digest
from export.writer.repository import Version


def prepare(  # noqa: PLR0913 - what, how, and where steps are shown
    name: str, weights: str, *, choice: Choice, say: Say, track: Track = lambda items, _: items, warn: Say | None = None
) -> Version:
    """Bring a file of Ultralytics into the form that is served, and verify it.

    Args:
        name: of the model.
        weights: a `.pt` file, an official name, or an ONNX file that Ultralytics exported; what is loaded of a `.pt`
            file is the admitted copy, which the manifest names.
        choice: what the user chose.
        say: takes each step.
        track: takes each step that goes through many images.
        warn: takes warnings; None: shown as a step.

    Raises:
        ExportError: the file, its task or its figures do not permit it.
    """
    report = Reporter(say, track, warn or say)
    path = Path(weights)
    _check_choice(choice, path)
    if path.suffix == ".engine":
        say(f"read {path.name}")
        return import_engine(name, path)
    if path.suffix == ".onnx":
        say(f"read {path.name}")
        task = read_task(path)
        checkpoint = open_onnx(path, task=task) if choice.predict else None
        source = Source(path.name, digest(path))
        return find_preparer(task)(File(name, path, source, checkpoint, choice, report))
    check_weights(weights)
    try:
        return _export_checkpoint(name, find_checkpoint(weights), choice=choice, report=report)
    except CheckpointError as exc:
        raise ExportError(str(exc)) from exc


def read_task(path: Path) -> str:
    """The task of an ONNX file that Ultralytics exported.

    Raises:
        ExportError: it is not such a file, or its task is not exported.
    """
    task = read_texts(read_onnx(path), path)["task"]
    check_task(task, where=str(path))
    return task


def _check_choice(choice: Choice, path: Path) -> None:
    """Reject options that do not fit each other, or the kind of file."""
    if "int8" in choice.precisions and choice.calibration is None:
        raise ExportError("--precision int8: got no --calibration, expected a folder of what the model will see")
    if path.suffix in {".engine", ".onnx"} and (choice.imgsz is not None or choice.nms_free):
        option = "--nms-free" if choice.imgsz is None else "--imgsz"
        raise ExportError(f"{option}: {path.name} fixes its size and its head, expected this only for a .pt file")
    if path.suffix == ".engine" and choice.predict:
        raise ExportError(f"--predict: got {path.name}, and an engine is not compared; expected an ONNX file")


def _export_checkpoint(name: str, checkpoint: Path, *, choice: Choice, report: Reporter) -> Version:
    """Export an admitted copy of a checkpoint with Ultralytics, and verify it.

    Raises:
        CheckpointError: it may not be loaded.
        ExportError: as `prepare`.
    """
    with (
        admit(checkpoint, allowed=choice.unpickling) as copy,
        tempfile.TemporaryDirectory(prefix="nereid-") as folder,
    ):
        report.say(f"export {checkpoint.name} to ONNX with Ultralytics")
        source = Source(checkpoint.name, digest(copy))
        path, copied = export_onnx(
            copy, Path(folder), name=str(checkpoint), imgsz=choice.imgsz, nms_free=choice.nms_free
        )
        return find_preparer(copied.task)(File(name, path, source, copied, choice, report))
