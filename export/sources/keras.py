"""Turns a model of Keras or TensorFlow into a verified version: an image classifier, or one with its own tensors.

It becomes an ONNX graph, and that a version as `classifier` and `onnx_tensors` make them; what it is compared with is
the model itself in place of the graph.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from export.errors import ExportError
from export.graph import compatibility
from export.proof.classifier_source import make_input, to_probabilities
from export.proof.session import Session
from export.sources import onnx_tensors
from export.sources.classifier import Classifier
from export.sources.classifier import prepare as prepare_classifier
from export.sources.keras_file import Kind, check_file, find_kind, has_scaling
from export.sources.keras_program import Program, read_program
from export.sources.onnx_classifier import Options, read_classifier
from export.writer.config import CLASSIFIER_BATCH
from export.writer.manifest import Source, digest
from export.writer.repository import Version

if TYPE_CHECKING:
    from export.sources.choice import Choice, Reporter

Task = Literal["classify", "none"]

_BATCHES, _SEED = (1, 3, 8), 11
_FREE_DIM = 16  # of inputs whose size is free
_LARGEST_DIFFERENCE = 1e-4  # of outputs, beside their largest value, or beside 1
_LARGEST_PIXEL = 255


@dataclass(frozen=True)
class Model:
    """A file, and what a user says of it.

    Attributes:
        path: a `.keras` or `.h5` file, or the folder of a SavedModel.
        task: `classify`, or `none` for the model's own tensors; None: what the model's tensors allow.
        options: of a classifier.
        signature: of a SavedModel with several; None: `serving_default`, or the only one.
        allowed: whether it may be loaded where it holds code.
    """

    path: Path
    task: Task | None = None
    options: Options = field(default_factory=Options)
    signature: str | None = None
    allowed: bool = False


def prepare(name: str, model: Model, *, choice: "Choice", report: "Reporter") -> Version:
    """Convert a model, and verify it against the program that it comes from.

    Args:
        name: of the model.
        model: the file, and what is said of it.
        choice: precisions, of a classifier.
        report: shows the steps and the warnings.

    Raises:
        ExportError: it may not be loaded, cannot be converted or served, or differs from its source.
    """
    path = model.path
    with _admit(path, allowed=model.allowed) as (copy, kind):
        report.say(f"load {path.name} and convert it with tf2onnx")
        source = Source(path.name, _digest(copy))
        scales = kind != "saved_model" and has_scaling(copy)
        program = read_program(copy, kind, signature=model.signature, allowed=model.allowed, where=str(path))
    obstacle = find_obstacle(program, model.task)
    if model.task == "classify" and obstacle:
        raise ExportError(f"--task classify: {path}: {obstacle}; next: --task none serves it with its own tensors")
    if model.task is None and obstacle:
        report.warn(f"{path.name} is served with its own tensors, as --task none: {obstacle}")
    is_classifier = not obstacle and model.task != "none"
    options = _complete(model.options, scales=scales) if is_classifier else model.options
    report.say(f"compare the graph with {program.name}")
    difference = _compare(program, name)
    if is_classifier:
        version = _make_classifier(name, path, program, options=options, source=source, choice=choice, report=report)
    else:
        with _write(program.graph, path) as file:
            version = onnx_tensors.prepare(name, file, inputs=None, max_batch_size=CLASSIFIER_BATCH, report=report)
    parity = {**version.parity, "compared_with": program.name, "outputs": difference}
    return replace(version, source=source, parity=parity)


@contextmanager
def _admit(path: Path, *, allowed: bool) -> Iterator[tuple[Path, Kind]]:
    """A file that may be loaded, and its kind: the bytes that were checked are those that are loaded."""
    if find_kind(path) == "saved_model" or not path.is_file():
        yield path, check_file(path, allowed=allowed)
        return
    # Only the user can read the folder (0700), and its name cannot be guessed.
    with tempfile.TemporaryDirectory(prefix="nereid-keras-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with _naming(copy, path):
            kind = check_file(copy, allowed=allowed)
        yield copy, kind


@contextmanager
def _naming(copy: Path, path: Path) -> Iterator[None]:
    """Let messages about a copy name the file of the user."""
    try:
        yield
    except ExportError as exc:
        raise ExportError(str(exc).replace(str(copy), str(path))) from exc


def _digest(path: Path) -> str:
    return digest(*(sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]))


@contextmanager
def _write(graph: ModelProto, path: Path) -> Iterator[Path]:
    """The graph as a file, of which messages speak as of the model."""
    with tempfile.TemporaryDirectory(prefix="nereid-keras-") as folder:
        file = Path(folder) / f"{path.stem}.onnx"
        onnx.save(graph, file)
        with _naming(file, path):
            yield file


def find_obstacle(program: Program, task: Task | None) -> str:
    """Why a model is no classifier of images; empty where it is one."""
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        return f"got {len(program.inputs)} inputs and {len(program.outputs)} outputs, expected one of each"
    ((shape, _),) = program.inputs.values()
    if len(shape) == 3:
        # (28, 28) is how tutorials have grey images, and how networks for sequences have theirs.
        return "" if task == "classify" else f"got an input of {shape}; next: --task classify, if these are grey images"
    if len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        return f"got an input of {shape}, expected (batch, height, width, 1 or 3)"
    return ""


def _complete(options: Options, *, scales: bool) -> Options:
    """Options with what Keras' own layers make unnecessary; what training fixed outside of the model must be said."""
    if options.fit is None:
        raise ExportError(
            "--fit: missing: no model says how images came to its size, expected stretch (all of the image, "
            "proportions change) or shortest (its shorter side; then the centre is cut out)"
        )
    if options.scale is None and options.mean is None and options.std is None:
        if not scales:
            raise ExportError(
                "--scale: missing: no layer is known to scale pixels (Rescaling, Normalization), expected --scale "
                "1/255 where the model was trained on 0 to 1, --scale 1 where on 0 to 255; or --mean and --std"
            )
        options = replace(options, scale=1.0)
    return replace(options, mean=options.mean or (0.0,), std=options.std or (1.0,))


def _compare(program: Program, name: str) -> float:
    """The largest difference of an output, on random inputs of some sizes of batch, beside its largest value or 1."""
    compatibility.check(program.graph)
    session, random = Session(program.graph, name=name), np.random.default_rng(_SEED)
    largest = 0.0
    for count in _BATCHES:
        batch = {tensor: _draw(random, count, shape, kind) for tensor, (shape, kind) in program.inputs.items()}
        got, expected = session.infer(batch), program.predict(batch)
        for output in program.outputs:
            if got[output].shape != expected[output].shape:
                raise ExportError(
                    f"{output}: the graph returns {got[output].shape}, {program.name} {expected[output].shape}"
                )
            scale = max(1.0, float(np.abs(expected[output]).max(initial=0)))
            difference = np.abs(got[output].astype(np.float64) - expected[output]).max(initial=0) / scale
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf)))
    if largest > _LARGEST_DIFFERENCE:
        raise ExportError(
            f"outputs: the graph differs from {program.name} by {largest:.4g}, expected at most {_LARGEST_DIFFERENCE}"
        )
    return largest


def _draw(random: np.random.Generator, count: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """A batch of random input; where a dim is free, of a small size."""
    if not shape or shape[0] not in {-1, count}:
        raise ExportError(f"batch: got an input of {shape}, expected a free first dimension: -1")
    sizes = (count, *(dim if dim > 0 else _FREE_DIM for dim in shape[1:]))
    values = random.uniform(0, _LARGEST_PIXEL if len(shape) > 2 else 1, sizes)
    return (values if np.issubdtype(kind, np.floating) else values > values.mean()).astype(kind)


def _make_classifier(  # noqa: PLR0913 - one argument for each fact
    name: str, path: Path, program: Program, *, options: Options, source: Source, choice: "Choice", report: "Reporter"
) -> Version:
    """The graph as a classifier, compared with the model on images."""
    with _write(_add_channel(program.graph), path) as file:
        classifier = read_classifier(file, options)
    if options.labels is None:
        report.warn(f"{path.name}: got no --labels: its {len(classifier.description.names)} classes have numbers")
    predict = _make_program(program, classifier)
    return prepare_classifier(name, classifier, source=source, choice=choice, report=report, predict=predict)


def _add_channel(graph: ModelProto) -> ModelProto:
    """A graph that takes grey images `(batch, height, width)`, with a dim for the channel; others as they are."""
    dims = graph.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 3:
        return graph
    widened = deepcopy(graph)
    entry = widened.graph.input[0]
    axes = numpy_helper.from_array(np.array([3], np.int64), "channel/axes")
    widened.graph.initializer.append(axes)
    widened.graph.node.insert(0, helper.make_node("Squeeze", ["channel/image", axes.name], [entry.name]))
    entry.name = "channel/image"
    entry.type.tensor_type.shape.dim.add(dim_value=1)
    return widened


def _make_program(program: Program, classifier: Classifier) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The model itself, with Pillow's own calls before it: an image in, probabilities out."""
    ((tensor, (shape, _)),) = program.inputs.items()
    description = classifier.description

    def run(image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers: NDArray[Any] = make_input(image_hwc, description, classifier.source)
        outputs: Mapping[str, NDArray[Any]] = program.predict(
            {tensor: numbers.reshape(1, *numbers.shape[1 : len(shape)])}
        )
        (values,) = outputs.values()
        return to_probabilities(values.reshape(-1), classes=len(description.names), softmax=classifier.softmax)

    return run
