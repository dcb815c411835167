"""Turns a detector of Ultralytics (boxes, masks, keypoints, rotated boxes) into a verified version."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError, first_line
from export.graph import compatibility
from export.graph.dfl import weigh_bins
from export.graph.dims import declare_head, fix_outputs, free_batch
from export.graph.fused_interface import fuse
from export.proof import parity, predictions
from export.proof.drawn_images import draw_images, draw_stop_sign
from export.proof.low_precision import Lowering
from export.proof.parity import Reference
from export.proof.session import Session
from export.sources.choice import Choice, Letterbox, Reporter
from export.sources.exported_detector import Detector, read_detector, read_model
from export.sources.tensorrt import build
from export.sources.ultralytics_checkpoint import run_network
from export.sources.ultralytics_results import predict_objects
from export.sources.ultralytics_tasks import File
from export.writer import config
from export.writer.manifest import Interface
from export.writer.repository import Version
from transformer.tasks import describe
from transformer.triton.model import Model

# A head that needs no NMS has 300 candidates inside: 128 x 128 is the smallest square with as many anchors.
_GOLDEN_SIDE = 128


def prepare(file: File) -> Version:
    """Write the interface of a detector, compare it with its source, and try its precisions and profiles.

    Raises:
        ExportError: the file or its figures do not permit it.
    """
    detector, choice, say = read_detector(file.path), file.choice, file.report.say
    size_hw = _fixed_size(detector, choice.letterbox)
    example_hw = size_hw or (_GOLDEN_SIDE, _GOLDEN_SIDE)
    plain = read_model(make_config(file.name, detector, interface="ultralytics", size_hw=size_hw))
    say("run the source on the drawn images")
    is_network = file.checkpoint is not None and file.checkpoint.is_network
    head = run_network(file.checkpoint) if file.checkpoint is not None and is_network else detector.run
    references = parity.run_source(head, plain, layout=detector.layout, images=draw_images())
    say(f"write the {choice.interface} interface and compare it with the source")
    graph, session = _rewrite(file.name, detector, choice.interface, size_hw=example_hw)
    dims = {output: tensor.shape[1:] for output, tensor in session.outputs.items()}
    described = make_config(file.name, detector, interface=choice.interface, size_hw=size_hw, dims=dims)
    compatibility.check(graph)
    model = describe(described, version="0")
    figures = parity.verify(
        session, model, layout=detector.layout, references=references, source=file.source.name
    ) | _compare_predictions(file, session, model, references)
    version = Version(
        graph=graph,
        config=described,
        task=detector.layout.task,
        interface=choice.interface,
        source=file.source,
        parity=figures,
        golden=_golden(session, size_hw=example_hw, interface=choice.interface),
    )
    return _lower(version, graph, session, choice=choice, report=file.report)


def _compare_predictions(file: File, session: Session, model: Model, references: list[Reference]) -> dict[str, Any]:
    """Compare what would be served with Ultralytics' own `predict`, where it is at hand."""
    if file.checkpoint is None:
        return {}
    file.report.say("compare it with Ultralytics' predict")
    confidence = predictions.choose_confidence(max(float(reference.candidates.scores[0]) for reference in references))
    predict = predict_objects(file.checkpoint, model)
    images = [reference.image for reference in references]
    found = predictions.verify(session, model, predict, images=images, confidence=confidence)
    return {"compared_with": "Ultralytics' predict", "detections": found}


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
        graph = rewrite(weigh_bins(graph), detector.layout)
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
    is_free = min(image.shape[1:]) < 0
    declared = {output: tensor.shape for output, tensor in session.outputs.items()}
    if is_free and not detector.layout.end2end:
        return declared
    # An image of one size has a fixed number of candidates, and a head that needs no NMS has it for all sizes: runtimes
    # differ in how much of that they infer.
    is_fused = image.datatype == "TYPE_UINT8"
    shape = (1, *size_hw, 3) if is_fused else (1, 3, *size_hw)
    found = session.infer(np.zeros(shape, np.uint8 if is_fused else np.float32))
    free = {"prototypes", "output1"} if is_free else set()  # as large as the image
    return {output: declared[output] if output in free else array.shape for output, array in found.items()}


def _fixed_size(detector: Detector, letterbox: Letterbox | None) -> tuple[int, int] | None:
    if letterbox == "rectangle" and detector.layout.stretch:
        raise ExportError("--letterbox rectangle: RT-DETR takes images that are stretched to one size; next: omit it")
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
    """`ModelConfig` of a detector with an interface; other arguments as `config.describe_detector`."""
    layout = detector.layout
    metadata = {
        "task": layout.task,
        "imgsz": list(size_hw or detector.imgsz_hw),
        "stride": detector.stride,
        "channels": 3,
        "args": {"dynamic": size_hw is None},
        "end2end": layout.end2end,
        "names": dict(detector.names),
        **({"resize": "stretch"} if layout.stretch else {}),
        **({"class_scores": True} if layout.class_scores else {}),
        **({"kpt_shape": list(layout.kpt_shape)} if layout.kpt_shape else {}),
        **({"kpt_names": detector.kpt_names} if layout.kpt_shape and detector.kpt_names else {}),
    }
    return config.describe_detector(
        name,
        interface=interface,
        size_hw=size_hw,
        classes=layout.classes,
        metadata=metadata,
        rest=layout.rest,
        dims=dims,
    )


def _golden(session: Session, *, size_hw: tuple[int, int], interface: Interface) -> dict[str, NDArray[Any]]:
    image: NDArray[Any] = draw_stop_sign(size_hw)
    if interface == "ultralytics":
        image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    model_input = image[None]
    return {session.input: model_input, **session.infer(model_input)}
