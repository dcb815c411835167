"""Turns a model of Ultralytics that returns a map, semantic segmentation or depth, into a verified version."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError, first_line
from export.graph import compatibility
from export.graph.map_interface import MAP_NAMES, declare_sizes, fuse_map, kind_of
from export.proof.drawn_images import draw_images, draw_stop_sign
from export.proof.map_precision import MapLowering
from export.proof.session import Session
from export.proof.task_parity import verify_images
from export.sources.choice import Choice, Reporter
from export.sources.exported_detector import read_model
from export.sources.map_file import MapFile, read_map
from export.sources.ultralytics_checkpoint import Checkpoint
from export.sources.ultralytics_map_program import RunMap, predict, run_network
from export.sources.ultralytics_tasks import File
from export.writer.config import DETECTOR_BATCH, Tensor, describe_model
from export.writer.manifest import Interface
from export.writer.repository import Version
from transformer.tasks import image_task
from transformer.triton.model import Model

_GOLDEN_SIDE = 128
# Of `predict` with a checkpoint, which enlarges logits to the image where an ONNX file has classes, so that borders
# differ: a network of random weights, which is all borders, has 0.25.
_BORDERS = {"semantic": {"pixels_apart": 0.5}}


@dataclass(frozen=True)
class _Program:
    """Ultralytics' whole program, to compare an export with.

    Attributes:
        name: in parity.json.
        checkpoint: the file that it runs.
        tolerances: as `Task.tolerances`; those of the task where empty.
    """

    name: str
    checkpoint: Checkpoint
    tolerances: Mapping[str, float] = field(default_factory=dict)


def prepare(file: File) -> Version:
    """Write the interface of a model of maps, compare it with its source, and try its precisions and profiles.

    Raises:
        ExportError: the file or its figures do not permit it.
    """
    choice, say = file.choice, file.report.say
    if choice.builder:
        raise ExportError(f"--format tensorrt: got {file.source.name}, which returns a map, expected a detector")
    found = read_map(file.path)
    size_hw = _choose_size(found, choice)
    plain = read_model(describe_map(file.name, found, interface="ultralytics", size_hw=size_hw))
    say(f"write the {choice.interface} interface and compare it with the source")
    graph = _rewrite(file.name, found, choice.interface, size_hw)
    compatibility.check(graph)
    config = describe_map(file.name, found, interface=choice.interface, size_hw=size_hw)
    session, model = Session(graph, name=file.name), read_model(config)
    images = [image.image_hwc for image in draw_images()]
    source, compared_with = _find_source(file, found)
    parity, _ = verify_images(session, model, lambda image: _run_source(source, plain, image), images=images)
    parity |= {"compared_with": compared_with}
    for program in _find_programs(file, found.task):
        say(f"compare it with Ultralytics' {program.name.replace('_', ' ')}")
        parity[program.name] = _compare(session, model, program, images)
    version = Version(
        graph=graph,
        config=config,
        task=found.task,
        interface=choice.interface,
        source=file.source,
        parity=parity,
        golden=_golden(session, size_hw=size_hw or (_GOLDEN_SIDE, _GOLDEN_SIDE), interface=choice.interface),
    )
    return _lower(version, graph, session, choice=choice, report=file.report)


def _find_source(file: File, found: MapFile) -> tuple[RunMap, str]:
    """What runs the source at the size of its input, and its name."""
    if file.checkpoint is not None and file.checkpoint.is_network:
        return run_network(file.checkpoint.load()), "the network of the checkpoint"
    return lambda batch: next(iter(found.source.infer(batch).values())), "the ONNX file itself"


def _find_programs(file: File, task: str) -> list[_Program]:
    """Programs of Ultralytics to compare with, where it is installed: that of the ONNX file, that of the checkpoint."""
    checkpoint = file.checkpoint
    if checkpoint is None:
        return []
    if not checkpoint.is_network:
        return [_Program("predict", checkpoint)]
    return [
        _Program("predict", Checkpoint(file.path, checkpoint.name, task)),
        _Program("predict_of_checkpoint", checkpoint, _BORDERS.get(task, {})),
    ]


def _choose_size(file: MapFile, choice: Choice) -> tuple[int, int] | None:
    """Height and width where they are fixed: depth stretches every image to one size."""
    if choice.letterbox == "rectangle" and (file.task == "depth" or file.fixed_hw):
        reason = "every image is stretched to one size" if file.task == "depth" else f"the file takes {file.fixed_hw}"
        raise ExportError(f"--letterbox rectangle: got a file of {file.task}: {reason}; next: omit it")
    is_free = file.task == "semantic" and choice.letterbox != "square"
    return file.fixed_hw or (None if is_free else file.imgsz_hw)


def describe_map(name: str, file: MapFile, *, interface: Interface, size_hw: tuple[int, int] | None) -> Any:
    """`ModelConfig` of a model that returns a map."""
    height, width = size_hw or (-1, -1)
    metadata = {
        "task": file.task,
        "imgsz": list(size_hw or file.imgsz_hw),
        "stride": file.stride,
        "channels": 3,
        "args": {"dynamic": size_hw is None},
        "names": dict(file.names),
    }
    kind, inner = kind_of(file.graph), (1,) if file.task == "depth" else ()
    if interface == "fused":
        image: Tensor = ("image", "TYPE_UINT8", (height, width, 3))
        output: Tensor = (MAP_NAMES[file.task], kind, (height, width))
    else:
        image, output = ("images", "TYPE_FP32", (3, height, width)), ("output0", kind, (*inner, height, width))
    return describe_model(name, image, outputs=[output], max_batch_size=DETECTOR_BATCH, metadata=metadata)


def _rewrite(name: str, file: MapFile, interface: Interface, size_hw: tuple[int, int] | None) -> ModelProto:
    try:
        graph = declare_sizes(file.graph, size_hw)
        return fuse_map(graph, task=file.task) if interface == "fused" else graph
    # ONNX Runtime loads more graphs than these operations know.
    except (KeyError, IndexError, ValueError, TypeError, StopIteration, RuntimeError, DecodeError) as exc:
        raise ExportError(
            f"{name}: got a graph that cannot be given the {interface} interface ({type(exc).__name__}: "
            f"{first_line(exc)}), expected one as Ultralytics exports it (format=onnx dynamic=True opset=17)"
        ) from exc


def _run_source(source: RunMap, plain: Model, image_hwc: NDArray[np.uint8]) -> Any:
    """The prediction of the source, whose tensors are those of the interface `ultralytics`."""
    task = image_task(plain)
    tensor, plan = task.preprocess(image_hwc, plain, size_wh=(image_hwc.shape[1], image_hwc.shape[0]))
    return task.postprocess({"output0": source(tensor[None])[0]}, plain, plan=plan, options=task.options())


def _compare(
    session: Session, model: Model, program: _Program, images: Sequence[NDArray[np.uint8]]
) -> dict[str, float]:
    """The largest differences of what would be served from a program.

    Raises:
        ExportError: one is over its tolerance.
    """
    task, run = image_task(model), predict(program.checkpoint, model)
    largest: dict[str, float] = {}
    for image in images:
        tensor, plan = task.preprocess(image, model, size_wh=(image.shape[1], image.shape[0]))
        outputs = {name: output[0] for name, output in session.infer(tensor[None]).items()}
        served = task.postprocess(outputs, model, plan=plan, options=task.options())
        for figure, value in served.compare(run(image)).items():
            largest[figure] = max(largest.get(figure, 0.0), value)
    tolerances = program.tolerances or task.tolerances
    for figure, value in largest.items():
        if not value <= tolerances[figure]:
            raise ExportError(
                f"{program.name}: {figure}: the export differs from Ultralytics by {value:.4g}, expected at most"
                f" {tolerances[figure]}"
            )
    return largest


def _golden(session: Session, *, size_hw: tuple[int, int], interface: Interface) -> dict[str, NDArray[Any]]:
    image: NDArray[Any] = draw_stop_sign(size_hw)
    if interface == "ultralytics":
        image = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    return {session.input: image[None], **session.infer(image[None])}


def _lower(version: Version, graph: ModelProto, session: Session, *, choice: Choice, report: Reporter) -> Version:
    """A version with its precisions and profiles."""
    lowering = MapLowering(graph, version.config, wanted=list(choice.precisions))
    costs = lowering.measure(session, choice.calibration, track=report.track)
    report.say("try the profiles that run here")
    content = hashlib.sha256(graph.SerializeToString()).hexdigest()
    profiles, goldens, left_out = lowering.try_profiles(version.golden, digest=content)
    for profile, reason in left_out.items():
        report.warn(f"profile {profile} is left out: {reason}")
    return replace(version, goldens=goldens, profiles=profiles, quantised=lowering.quantised, precisions=costs)
