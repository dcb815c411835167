"""Turns a classifier, wherever its graph is from, into a verified version."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError, first_line
from export.graph.classifier import OUTPUT, declare_classifier, fuse_classifier
from export.graph.dims import free_batch
from export.proof.classifier_source import make_program
from export.proof.drawn_images import draw_images
from export.proof.session import Session
from export.proof.top1 import ClassifierLowering
from export.sources import task_graph
from export.sources.choice import Choice, Reporter
from export.sources.classifier_description import Description
from export.sources.tensorrt import build
from export.writer.config import CLASSIFIER_BATCH, describe_model, to_text
from export.writer.manifest import Interface, Source
from export.writer.repository import Version
from registry.config import MAX_BYTES
from transformer.tasks.classify import Classification

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_CONSTANT = 1e-6  # difference of a probability between images


@dataclass(frozen=True)
class Classifier:
    """A classifier as its file has it.

    Attributes:
        graph: normalised: input `images`, output `output0`.
        source: the file itself.
        output: name of the file's output with a number for each class.
        output_shape: of it, for one image.
        softmax: whether it is logits.
        fixed_batch: whether the file takes a batch of one only.
        description: what training fixed beside the graph.
        metadata: further entries of `parameters.metadata`.
    """

    graph: ModelProto
    source: Session
    output: str
    output_shape: tuple[int, ...]
    softmax: bool
    fixed_batch: bool
    description: Description
    metadata: dict[str, Any]


def prepare(  # noqa: PLR0913 - what, how, and where steps are shown
    name: str,
    classifier: Classifier,
    *,
    source: Source,
    choice: Choice,
    report: Reporter,
    predict: Predict | None = None,
) -> Version:
    """Bring a classifier into the form that is served, and verify it.

    Args:
        name: of the model.
        classifier: its file and its description.
        source: for the manifest.
        choice: interface, precisions, calibration, builder.
        report: shows the steps.
        predict: Ultralytics' own predict: an image in, probabilities out; None: the file itself is the source, with
            Pillow's own calls before it.

    Raises:
        ExportError: the graph cannot be served, or differs from its source.
    """
    report.say("run the source on the drawn images")
    own = make_program(classifier.source, classifier.description, output=classifier.output, softmax=classifier.softmax)
    images = [image.image_hwc for image in draw_images()]
    expected = [(predict or own)(image) for image in images]
    _check_possible(name, expected)
    report.say(f"write the {choice.interface} interface and compare it with the source")
    graph = _rewrite(name, classifier, choice.interface)
    config = describe(name, classifier, interface=choice.interface)
    found = {id(image): Classification(probabilities) for image, probabilities in zip(images, expected, strict=True)}
    version = task_graph.prepare(graph, config, predict=lambda image: found[id(image)], items=images, source=source)
    compared_with = "Ultralytics' predict" if predict else "the file, run with Pillow and ONNX Runtime"
    parity = {"compared_with": compared_with, **version.parity}
    return _lower(replace(version, parity=parity, interface=choice.interface), graph, choice=choice, report=report)


def describe(name: str, classifier: Classifier, *, interface: Interface) -> Any:
    """`ModelConfig` of a classifier.

    Raises:
        ExportError: its labels make it longer than a config may be.
    """
    description = classifier.description
    height, width = description.size_hw
    if interface == "fused":
        source = ("image", "TYPE_UINT8", (height, width, description.depth))
        output = OUTPUT
    else:
        source = ("images", "TYPE_FP32", (3, height, width))
        output = "output0"
    config = describe_model(
        name,
        source,
        outputs=[(output, "TYPE_FP32", (len(description.names),))],
        max_batch_size=CLASSIFIER_BATCH,
        metadata=description.metadata | classifier.metadata,
    )
    size = len(to_text(config).encode())
    if size > MAX_BYTES:
        raise ExportError(
            f"{name}: labels: got {len(description.names)} in a config.pbtxt of {size} bytes, expected at most "
            f"{MAX_BYTES}; next: shorter labels"
        )
    return config


def _rewrite(name: str, classifier: Classifier, interface: Interface) -> ModelProto:
    description = classifier.description
    classes = len(description.names)
    try:
        graph = free_batch(classifier.graph) if classifier.fixed_batch else classifier.graph
        if interface == "ultralytics":
            return declare_classifier(graph, classes=classes)
        return fuse_classifier(
            graph,
            size_hw=description.size_hw,
            depth=description.depth,
            planes=description.layout == "nchw",
            reverses=description.channels == "bgr",
            factors=description.pixels.factors,
            offsets=description.pixels.offsets,
            output=classifier.output_shape,
            classes=classes,
            softmax=classifier.softmax,
        )
    # ONNX Runtime loads more graphs than these operations know.
    except (KeyError, IndexError, ValueError, TypeError, StopIteration, RuntimeError, DecodeError) as exc:
        reason = f"{type(exc).__name__}: {first_line(exc)}"
        raise ExportError(f"{name}: got a graph that cannot be given the {interface} interface ({reason})") from exc


def _check_possible(name: str, expected: list[NDArray[np.float32]]) -> None:
    """Check what the source returns for the drawn images, which are as different as images are.

    Raises:
        ExportError: it returns no probabilities, or the same for all of them.
    """
    table = np.stack(expected)
    if not np.isfinite(table).all() or table.min() < -1e-3 or table.max() > 1 + 1e-3:
        raise ExportError(
            f"{name}: output: got numbers from {table.min():.4g} to {table.max():.4g}, expected probabilities, from 0 "
            "to 1; next: --softmax yes where they are logits"
        )
    if np.ptp(table, axis=0).max() < _CONSTANT:
        raise ExportError(
            f"{name}: output: got the same for each of {len(table)} images, expected one that depends on the image; "
            "next: look at --scale, --mean and --std, and whether the file has its weights"
        )


def _lower(version: Version, graph: ModelProto, *, choice: Choice, report: Reporter) -> Version:
    """A version with its precisions, plans and profiles."""
    lowering = ClassifierLowering(graph, version.config, wanted=list(choice.precisions))
    costs = lowering.measure(Session(graph, name=version.config.name), choice.calibration, track=report.track)
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
