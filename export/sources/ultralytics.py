"""Turns a detector of Ultralytics into a verified version."""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError, first_line
from export.graph import compatibility
from export.graph.dfl import weigh_bins
from export.graph.dims import declare_head, fix_outputs, free_batch
from export.graph.fused_interface import fuse
from export.graph.head import MAP_HEADS
from export.proof import parity, predictions
from export.proof.calibration import Sample
from export.proof.drawn_images import draw_images, draw_stop_sign
from export.proof.low_precision import Lowering
from export.proof.parity import Head
from export.proof.precision import Precision, Track
from export.proof.predictions import choose_confidence
from export.proof.session import Session
from export.sources import ultralytics_maps
from export.sources.exported_detector import Detector, read_detector, read_model
from export.sources.tensorrt import Builder, build
from export.sources.trusted_checkpoints import CheckpointError, admit
from export.sources.ultralytics_checkpoint import Program, export_onnx, find_checkpoint, predict_onnx
from export.sources.ultralytics_engine import import_engine
from export.sources.weights_file import check_weights, find_task
from export.writer import config
from export.writer.manifest import Interface, Source, digest
from export.writer.repository import Version
from transformer.tasks import describe
from transformer.triton.model import Model

Letterbox = Literal["rectangle", "square"]
Say = Callable[[str], None]

# A head that needs no NMS has 300 candidates inside: 128 x 128 is the smallest square with as many anchors.
_GOLDEN_SIDE = 128


@dataclass(frozen=True)
class Reporter:
    """Shows steps, progress through many images, and warnings."""

    say: Say
    track: Track
    warn: Say


@dataclass(frozen=True)
class Choice:
    """The options of a user.

    Attributes:
        interface: tensors of the graph, see `export.writer.config.describe_detector`.
        letterbox: `rectangle` leaves height and width free, `square` fixes them; None takes what the file allows.
        imgsz: input size of a checkpoint's export; None for what it was trained with.
        precisions: besides FP32.
        calibration: images for int8 and to measure precisions on; None for the drawn ones, which cannot calibrate.
        builder: of a TensorRT plan, where one is wanted.
        unpickling: whether a checkpoint may be loaded that is not on the list, which runs the code that it holds.
        nms_free: of a checkpoint with two heads, the one that needs no NMS; an ONNX file has one.
        predict: whether an ONNX file is compared with Ultralytics' own predict, as a checkpoint always is.
    """

    interface: Interface = "fused"
    letterbox: Letterbox | None = None
    imgsz: int | None = None
    precisions: Collection[Precision] = ()
    calibration: Sequence[Sample] | None = None
    builder: Builder | None = None
    unpickling: bool = False
    nms_free: bool = False
    predict: bool = False


def prepare(  # noqa: PLR0913 - what, how, and where steps are shown
    name: str, weights: str, *, choice: Choice, say: Say, track: Track = lambda items, _: items, warn: Say | None = None
) -> Version:
    """Bring a detector into the form that is served, and verify it.

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
    if path.suffix != ".engine" and find_task(weights) in MAP_HEADS.values():
        return ultralytics_maps.prepare(name, weights, choice=choice, report=report)
    if path.suffix == ".engine":
        say(f"read {path.name}")
        return import_engine(name, path)
    if path.suffix == ".onnx":
        say(f"read {path.name}")
        detector = read_detector(path)
        predict = predict_onnx(path, name=path.name) if choice.predict else lambda _: None
        proof = _Proof(Source(path.name, digest(path)), lambda model: Program(_head(detector), predict(model)))
        return _verify(name, detector, proof=proof, choice=choice, report=report)
    check_weights(weights)
    try:
        return _export_checkpoint(name, find_checkpoint(weights), choice=choice, report=report)
    except CheckpointError as exc:
        raise ExportError(str(exc)) from exc


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
        onnx_file, program = export_onnx(
            copy, Path(folder), name=str(checkpoint), imgsz=choice.imgsz, nms_free=choice.nms_free
        )
        return _verify(name, read_detector(onnx_file), proof=_Proof(source, program), choice=choice, report=report)


@dataclass(frozen=True)
class _Proof:
    """What an export is compared with: a file, and a function that runs it as a model is served."""

    source: Source
    program: Callable[[Model], Program]


def _head(detector: Detector) -> Head:
    """The original ONNX file as a function."""
    return lambda images: next(iter(detector.source.infer(images).values()))


def _verify(name: str, detector: Detector, *, proof: _Proof, choice: Choice, report: Reporter) -> Version:
    """Write the interface of a detector, compare it with its source, and try its precisions and profiles."""
    size_hw = _fixed_size(detector, choice.letterbox)
    example_hw = size_hw or (_GOLDEN_SIDE, _GOLDEN_SIDE)
    plain = read_model(make_config(name, detector, interface="ultralytics", size_hw=size_hw))
    report.say("run the source on the drawn images")
    program, images = proof.program(plain), draw_images()
    references = parity.run_source(program.head, plain, images=images)
    report.say(f"write the {choice.interface} interface and compare it with the source")
    graph, session = _rewrite(name, detector, choice.interface, size_hw=example_hw)
    dims = {output: tensor.shape[1:] for output, tensor in session.outputs.items()}
    described = make_config(name, detector, interface=choice.interface, size_hw=size_hw, dims=dims)
    compatibility.check(graph)
    model = describe(described, version="0")
    figures = parity.verify(session, model, references=references, source=proof.source.name)
    if program.predict is not None:
        report.say("compare it with Ultralytics' predict")
        confidence = choose_confidence(max(float(reference.candidates.scores[0]) for reference in references))
        found = predictions.verify(session, model, program.predict, images=images, confidence=confidence)
        figures |= {"compared_with": "Ultralytics' predict", "detections": found}
    golden = _golden(session, size_hw=example_hw, interface=choice.interface)
    version = Version(
        graph=graph,
        config=described,
        task="detect",
        interface=choice.interface,
        source=proof.source,
        parity=figures,
        golden=golden,
    )
    return _lower(version, graph, session, choice=choice, report=report)


def _lower(version: Version, graph: ModelProto, session: Session, *, choice: Choice, report: Reporter) -> Version:
    """A version with its precisions, plans and profiles."""
    lowering = Lowering(graph, version.config, wanted=list(choice.precisions))
    costs = lowering.measure(session, choice.calibration, track=report.track)
    plans = {}
    if choice.builder:
        report.say(f"build {choice.builder.filename} with TensorRT")
        plans[choice.builder.filename] = build(graph, choice.builder)
    content = hashlib.sha256(graph.SerializeToString()).hexdigest()
    report.say("try the profiles that run here")
    profiles, goldens, left_out = lowering.try_profiles(version.golden, digest=content)
    for profile, reason in left_out.items():
        report.warn(f"profile {profile} is left out: {reason}")
    return replace(
        version,
        goldens=goldens,
        profiles=profiles,
        quantised=lowering.quantised,
        plans=plans,
        precisions=costs,
    )


def _rewrite(
    name: str, detector: Detector, interface: Interface, *, size_hw: tuple[int, int]
) -> tuple[ModelProto, Session]:
    """The graph of an interface with all fixed dims declared, and its session; `size_hw` is a size that it takes."""
    try:
        graph = free_batch(detector.graph) if detector.fixed_batch else detector.graph
        rewrite = fuse if interface == "fused" else declare_head
        graph = rewrite(weigh_bins(graph), classes=detector.classes, end2end=detector.end2end)
    # ONNX Runtime loads more graphs than these operations know.
    except (KeyError, IndexError, ValueError, TypeError, StopIteration, RuntimeError, DecodeError) as exc:
        reason = f"{type(exc).__name__}: {first_line(exc)}"
        raise ExportError(
            f"{name}: got a graph that cannot be given the {interface} interface ({reason}), expected one as "
            "Ultralytics exports it (yolo export format=onnx dynamic=True opset=17)"
        ) from exc
    graph = fix_outputs(graph, _find_shapes(Session(graph, name=name), detector, size_hw=size_hw))
    return graph, Session(graph, name=name)


def _find_shapes(session: Session, detector: Detector, *, size_hw: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of outputs; -1 where a dim is free, -1 or 1 for the batch."""
    image = session.inputs[session.input]
    if min(image.shape[1:]) < 0 and not detector.end2end:
        return {output: tensor.shape for output, tensor in session.outputs.items()}
    # An image of one size has a fixed number of candidates, and a head that needs no NMS has it for all sizes: runtimes
    # differ in how much of that they infer.
    is_fused = image.datatype == "TYPE_UINT8"
    shape = (1, *size_hw, 3) if is_fused else (1, 3, *size_hw)
    outputs = session.infer(np.zeros(shape, np.uint8 if is_fused else np.float32))
    return {output: array.shape for output, array in outputs.items()}


def _fixed_size(detector: Detector, letterbox: Letterbox | None) -> tuple[int, int] | None:
    if letterbox == "rectangle" and detector.fixed_hw:
        raise ExportError(
            f"--letterbox rectangle: the file takes {detector.fixed_hw[0]}x{detector.fixed_hw[1]} pixels only: export "
            "it again with dynamic=True, or pass --letterbox square"
        )
    return detector.imgsz_hw if letterbox == "square" and not detector.fixed_hw else detector.fixed_hw


def make_config(
    name: str,
    detector: Detector,
    *,
    interface: Interface,
    size_hw: tuple[int, int] | None,
    dims: Mapping[str, config.Dims] | None = None,
) -> Any:
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
        name, interface=interface, size_hw=size_hw, classes=detector.classes, metadata=metadata, dims=dims
    )


def _golden(session: Session, *, size_hw: tuple[int, int], interface: Interface) -> dict[str, NDArray[Any]]:
    image: NDArray[Any] = draw_stop_sign(size_hw)
    if interface == "ultralytics":
        image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    model_input = image[None]
    return {session.input: model_input, **session.infer(model_input)}
