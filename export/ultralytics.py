"""A detector of Ultralytics to a proven version."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export import compatibility, config, parity
from export.checkpoint import export_onnx, find_checkpoint
from export.detector import Detector, read_detector
from export.errors import ExportError
from export.graph import declare_head, free_batch, fuse
from export.manifest import Interface, Source, digest
from export.parity import Head
from export.pictures import draw_pictures, draw_stop_sign
from export.repository import Version
from export.runtime import Session
from transformer.model import describe

Letterbox = Literal["rectangle", "square"]
Say = Callable[[str], None]

# A head that needs no NMS has 300 candidates inside: 128 x 128 is the smallest square with as many anchors.
_GOLDEN_SIDE = 128


@dataclass(frozen=True)
class Choice:
    """What a user may choose.

    Attributes:
        interface: see design, section 2.
        letterbox: `rectangle` leaves height and width free, `square` fixes them; None takes what the file allows.
        imgsz: input size of a checkpoint's export; None for what it was trained with.
    """

    interface: Interface = "fused"
    letterbox: Letterbox | None = None
    imgsz: int | None = None


def prepare(name: str, weights: str, *, choice: Choice, say: Say) -> Version:
    """Bring a detector into the form that is served, and prove it.

    Args:
        name: of the model.
        weights: a `.pt` file, an official name, or an ONNX file that Ultralytics exported.
        choice: what the user chose.
        say: told each step.

    Raises:
        ExportError: the file, its task or its figures do not allow it.
    """
    if Path(weights).suffix == ".onnx":
        if choice.imgsz is not None:
            raise ExportError("--imgsz: an ONNX file has its size already, expected it only with a .pt file")
        path = Path(weights)
        say(f"read {path.name}")
        detector = read_detector(path)
        return _prove(name, detector, source=(path, _head(detector, path)), choice=choice, say=say)
    checkpoint = find_checkpoint(weights)
    with tempfile.TemporaryDirectory(prefix="nereid-") as folder:
        say(f"export {checkpoint.name} to ONNX with Ultralytics")
        onnx_file, head = export_onnx(checkpoint, Path(folder), imgsz=choice.imgsz)
        return _prove(name, read_detector(onnx_file), source=(checkpoint, head), choice=choice, say=say)


def _head(detector: Detector, path: Path) -> Head:
    """The original ONNX file as a function."""
    session = Session(path, name=path.name)
    output = detector.graph.graph.output[0].name
    return lambda images: session.infer(images)[output]


def _prove(name: str, detector: Detector, *, source: tuple[Path, Head], choice: Choice, say: Say) -> Version:
    path, head = source
    size_hw = _fixed_size(detector, choice.letterbox)
    plain = describe(_config(name, detector, interface="ultralytics", size_hw=size_hw), version="0")
    say("run the source on the fixed pictures")
    references = parity.refer(head, plain, pictures=draw_pictures())
    say(f"write the {choice.interface} interface and compare it with the source")
    graph = free_batch(detector.graph) if detector.fixed_batch else detector.graph
    rewrite = fuse if choice.interface == "fused" else declare_head
    graph = rewrite(graph, classes=len(detector.names), end2end=detector.end2end)
    session = Session(graph, name=name)
    described = _config(name, detector, interface=choice.interface, size_hw=size_hw)
    model = describe(described, version="0")
    figures = parity.prove(session, model, references=references, source=path.name)
    compatibility.check(graph)
    return Version(
        graph=graph,
        config=described,
        task="detect",
        interface=choice.interface,
        source=Source(path.name, digest(path)),
        parity=figures,
        golden=_golden(session, size_hw=size_hw or (_GOLDEN_SIDE, _GOLDEN_SIDE), interface=choice.interface),
    )


def _fixed_size(detector: Detector, letterbox: Letterbox | None) -> tuple[int, int] | None:
    if letterbox == "rectangle" and detector.fixed_hw:
        raise ExportError(
            f"--letterbox rectangle: the file takes {detector.fixed_hw[0]}x{detector.fixed_hw[1]} pixels only: export "
            "it again with dynamic=True, or pass --letterbox square"
        )
    return detector.imgsz_hw if letterbox == "square" and not detector.fixed_hw else detector.fixed_hw


def _config(name: str, detector: Detector, *, interface: Interface, size_hw: tuple[int, int] | None) -> Any:
    metadata = {
        "task": "detect",
        "imgsz": list(size_hw or detector.imgsz_hw),
        "stride": detector.stride,
        "channels": 3,
        "args": {"dynamic": size_hw is None},
        "end2end": detector.end2end,
        "names": dict(detector.names),
    }
    return config.describe_detector(
        name, interface=interface, size_hw=size_hw, classes=len(detector.names), metadata=metadata
    )


def _golden(session: Session, *, size_hw: tuple[int, int], interface: Interface) -> dict[str, NDArray[Any]]:
    image: NDArray[Any] = draw_stop_sign(size_hw)
    if interface == "ultralytics":
        image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    model_input = image[None]
    return {session.input: model_input, **session.infer(model_input)}
