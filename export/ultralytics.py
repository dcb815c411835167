"""A detector of Ultralytics to a proven version."""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from checkpoints import CheckpointError, admit
from export import compatibility, config, parity
from export.calibration import Sample
from export.checkpoint import export_onnx, find_checkpoint
from export.detector import Detector, read_detector
from export.distribution import weigh_bins
from export.errors import ExportError
from export.graph import declare_head, fix_outputs, free_batch, fuse
from export.manifest import Interface, Source, digest
from export.parity import Head
from export.pictures import draw_pictures, draw_stop_sign
from export.precision import LIMITS, Precision, Track, find_truth, measure
from export.profiles import describe_engine, describe_profiles
from export.quantisation import quantise
from export.repository import Version
from export.runtime import LowPrecisionSession, Session
from export.tensorrt import PLANS, Builder, build, find_capability, read_engine
from transformer.model import Model, describe
from transformer.tasks import detect

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
        precisions: besides FP32.
        calibration: pictures for int8 and to measure precisions on; None for those that come along, which cannot
            calibrate.
        builder: of a TensorRT plan, where one is wanted.
        unpickling: whether a checkpoint that is not official may be loaded, which runs whatever code it holds.
    """

    interface: Interface = "fused"
    letterbox: Letterbox | None = None
    imgsz: int | None = None
    precisions: Collection[Precision] = ()
    calibration: Sequence[Sample] | None = None
    builder: Builder | None = None
    unpickling: bool = False


def prepare(name: str, weights: str, *, choice: Choice, say: Say, track: Track = lambda items, _: items) -> Version:
    """Bring a detector into the form that is served, and prove it.

    Args:
        name: of the model.
        weights: a `.pt` file, an official name, or an ONNX file that Ultralytics exported; what is loaded of a `.pt`
            file is what was admitted, and what the manifest names.
        choice: what the user chose.
        say: told each step.
        track: given each step that goes through many pictures.

    Raises:
        ExportError: the file, its task or its figures do not allow it.
    """
    if "int8" in choice.precisions and choice.calibration is None:
        raise ExportError("--precision int8: got no --calibration, expected a folder of what the model will see")
    if Path(weights).suffix == ".engine":
        say(f"read {Path(weights).name}")
        return _import_engine(name, Path(weights))
    if Path(weights).suffix == ".onnx":
        if choice.imgsz is not None:
            raise ExportError("--imgsz: an ONNX file has its size already, expected it only with a .pt file")
        path = Path(weights)
        say(f"read {path.name}")
        detector = read_detector(path)
        source = Source(path.name, digest(path))
        return _prove(name, detector, source=(source, _head(detector, path)), choice=choice, say=say, track=track)
    checkpoint = find_checkpoint(weights)
    try:
        with (
            admit(checkpoint, allowed=choice.unpickling) as copy,
            tempfile.TemporaryDirectory(prefix="nereid-") as folder,
        ):
            say(f"export {checkpoint.name} to ONNX with Ultralytics")
            source = Source(checkpoint.name, digest(copy))
            onnx_file, head = export_onnx(copy, Path(folder), name=str(checkpoint), imgsz=choice.imgsz)
            return _prove(name, read_detector(onnx_file), source=(source, head), choice=choice, say=say, track=track)
    except CheckpointError as exc:
        raise ExportError(str(exc)) from exc


def _head(detector: Detector, path: Path) -> Head:
    """The original ONNX file as a function."""
    session = Session(path, name=path.name)
    output = detector.graph.graph.output[0].name
    return lambda images: session.infer(images)[output]


def _prove(  # noqa: PLR0913 - one argument for each fact
    name: str, detector: Detector, *, source: tuple[Source, Head], choice: Choice, say: Say, track: Track
) -> Version:
    origin, head = source
    size_hw = _fixed_size(detector, choice.letterbox)
    plain = describe(_config(name, detector, interface="ultralytics", size_hw=size_hw), version="0")
    say("run the source on the fixed pictures")
    references = parity.refer(head, plain, pictures=draw_pictures())
    say(f"write the {choice.interface} interface and compare it with the source")
    graph = free_batch(detector.graph) if detector.fixed_batch else detector.graph
    rewrite = fuse if choice.interface == "fused" else declare_head
    graph = rewrite(weigh_bins(graph), classes=len(detector.names), end2end=detector.end2end)
    session = Session(graph, name=name)
    # Where the size is fixed, so is the number of candidates, and Triton wants the config to say it.
    graph = fix_outputs(graph, session.shapes)
    dims = {output: shape[1:] for output, shape in session.shapes.items()}
    described = _config(name, detector, interface=choice.interface, size_hw=size_hw, dims=dims)
    model = describe(described, version="0")
    figures = parity.prove(session, model, references=references, source=origin.name)
    compatibility.check(graph)
    quantised, precisions = _lower(graph, model, session=session, choice=choice, track=track)
    plans = {}
    if choice.builder:
        say(f"build {choice.builder.filename} with TensorRT")
        plans[choice.builder.filename] = build(graph, choice.builder)
    content = hashlib.sha256(graph.SerializeToString()).hexdigest()
    return Version(
        graph=graph,
        config=described,
        task="detect",
        interface=choice.interface,
        source=origin,
        parity=figures,
        golden=_golden(session, size_hw=size_hw or (_GOLDEN_SIDE, _GOLDEN_SIDE), interface=choice.interface),
        profiles=describe_profiles(described, digest=content, int8=quantised is not None),
        quantised=quantised,
        plans=plans,
        precisions=precisions,
    )


def _import_engine(name: str, path: Path) -> Version:
    """A version of an engine as it is: what it says is not compared with anything.

    Raises:
        ExportError: it is none that can be served, or there is no GPU here, whose kind names the file.
    """
    engine = read_engine(path)
    capability = find_capability()
    imgsz = engine.metadata["imgsz"]
    names = {int(index): str(label) for index, label in engine.metadata["names"].items()}
    metadata = {
        "task": "detect",
        "imgsz": [imgsz, imgsz] if isinstance(imgsz, int) else [int(size) for size in imgsz],
        "stride": int(engine.metadata["stride"]),
        "channels": 3,
        "args": {"dynamic": True},
        "end2end": bool(engine.metadata.get("end2end", False)),
        "names": names,
    }
    described = config.describe_detector(
        name, interface="ultralytics", size_hw=None, classes=len(names), metadata=metadata
    )
    return Version(
        graph=None,
        config=describe_engine(described, capability=capability),
        task="detect",
        interface="ultralytics",
        source=Source(path.name, digest(path)),
        parity={"source": path.name, "not_compared": "an engine is its own source"},
        golden={},
        plans={PLANS[capability]: engine.plan},
    )


def _lower(
    graph: ModelProto, model: Model, *, session: Session, choice: Choice, track: Track
) -> tuple[ModelProto | None, dict[str, Any]]:
    """The int8 graph, where it is wanted, and what each precision costs.

    Raises:
        ExportError: it costs too much.
    """
    wanted = [precision for precision in LIMITS if precision in choice.precisions]
    if not wanted:
        return None, {}
    samples = choice.calibration or [Sample(picture, None) for picture in draw_pictures()]
    truth = find_truth(session, model, samples, track=track)
    quantised: ModelProto | None = None
    costs: dict[str, Any] = {}
    for precision in wanted:
        lower = graph
        if precision == "int8":
            # A generator: what is calibrated with need not fit into memory.
            inputs = (
                detect.preprocess(samples[index].picture.image_hwc, model)[0][None]
                for index in track(range(len(samples)), "calibrate int8")
            )
            lower = quantised = quantise(graph, inputs)
            compatibility.check(quantised)
        run = LowPrecisionSession(lower, name=f"{model.name} in {precision}")
        costs[precision] = measure(precision, run, model, samples, truth, track=track)
    return quantised, costs


def _fixed_size(detector: Detector, letterbox: Letterbox | None) -> tuple[int, int] | None:
    if letterbox == "rectangle" and detector.fixed_hw:
        raise ExportError(
            f"--letterbox rectangle: the file takes {detector.fixed_hw[0]}x{detector.fixed_hw[1]} pixels only: export "
            "it again with dynamic=True, or pass --letterbox square"
        )
    return detector.imgsz_hw if letterbox == "square" and not detector.fixed_hw else detector.fixed_hw


def _config(
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
        name, interface=interface, size_hw=size_hw, classes=len(detector.names), metadata=metadata, dims=dims
    )


def _golden(session: Session, *, size_hw: tuple[int, int], interface: Interface) -> dict[str, NDArray[Any]]:
    image: NDArray[Any] = draw_stop_sign(size_hw)
    if interface == "ultralytics":
        image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    model_input = image[None]
    return {session.input: model_input, **session.infer(model_input)}
