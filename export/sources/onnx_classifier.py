"""Reads any ONNX file that classifies images, with what a user, or the files beside it, say of its images."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError
from export.graph.nodes import prune
from export.proof.classifier_source import make_input
from export.proof.drawn_images import draw_images
from export.proof.session import Session
from export.sources.classifier import Classifier
from export.sources.classifier_description import Channels, Description, Layout, Pixels, Softmax
from export.sources.onnx_file import normalise, read_onnx
from export.sources.preprocessor import read_preprocessor
from predictor.backends.signature import Tensor
from transformer.imaging.resampling import FILTERS
from transformer.triton.model import MAX_LABELS, MAX_SIDE_PX

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_FLOATS = {"TYPE_FP32", "TYPE_FP16"}
_WHOLE = {"TYPE_UINT8", "TYPE_INT32", "TYPE_INT64"}
_SUM = 0.01  # by which the sum of probabilities may differ from 1: in FP16, over many classes


@dataclass(frozen=True)
class Options:
    """What is said of a classifier; None is left to the file.

    Attributes:
        labels: names of its classes, in the order of its output.
        fit: `shortest` or `stretch`, see `transformer.tasks.resize`.
        size: of the resized image, one number or height and width.
        crop: height and width of the part of it that the graph gets.
        mean, std: of each channel in the order of the graph, or of all.
        scale: what a pixel of 0 to 255 is multiplied by before.
        layout, channels, interpolation, softmax: see `classifier_description` and `transformer.tasks.resize`.
        output: name of the output with a number for each class.
    """

    labels: Sequence[str] | None = None
    fit: str | None = None
    size: int | Sequence[int] | None = None
    crop: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    scale: float | None = None
    layout: Layout | None = None
    channels: Channels | None = None
    interpolation: str | None = None
    softmax: Softmax = "auto"
    output: str | None = None


def add_preprocessor(options: Options, path: Path) -> Options:
    """Options with those of a preprocessor's file where there are none."""
    read = read_preprocessor(path)
    own = {each.name: getattr(options, each.name) for each in fields(options)}
    if own["size"] is not None:  # the size of a user has the fit of a user
        read.pop("fit", None)
    return replace(options, **{key: value for key, value in read.items() if own[key] is None})


def read_classifier(path: Path, options: Options) -> Classifier:
    """Load a file, and run it on images.

    Raises:
        ExportError: it is no classifier, or what is said of it is missing or does not fit.
    """
    model = read_onnx(path)
    source = Session(path, name=str(path))
    image = _check_input(source, path)
    layout, depth = _find_layout(image, options, path)
    size_hw = _find_size(image, options, layout, path)
    channels: Channels = options.channels or ("grey" if depth == 1 else "rgb")
    if (channels == "grey") != (depth == 1):
        raise ExportError(f"--channels {channels}: {path}: the input takes {depth} channels ({list(image.shape)})")
    description = Description(
        size_hw,
        _make_resize(options, size_hw),
        layout,
        channels,
        _read_pixels(options, image, depth),
        {},
        options.softmax,
    )
    outputs = [_run(each.image_hwc, description, source) for each in draw_images()]
    output, classes = _find_output(outputs[0], options, path)
    names = dict(enumerate(options.labels or map(str, range(classes))))
    numbers = np.stack([each[output].reshape(-1) for each in outputs]).astype(np.float64)
    return Classifier(
        graph=_normalise(model, output),
        source=source,
        output=output,
        output_shape=outputs[0][output].shape,
        softmax=_decide_softmax(numbers, options.softmax, output),
        fixed_batch=image.shape[0] == 1,
        description=replace(description, names=names),
        metadata={},
    )


def _check_input(source: Session, path: Path) -> Tensor:
    got = ", ".join(
        f"{name} {each.datatype.removeprefix('TYPE_')} {list(each.shape)}" for name, each in source.inputs.items()
    )
    image, *others = source.inputs.values()
    if others or len(image.shape) != 4 or image.datatype not in _FLOATS | _WHOLE:
        raise ExportError(
            f"{path}: inputs: got {got}, expected one image of four dims (batch, channels, height, width or batch, "
            "height, width, channels); next: without --task the file is served with its own tensors"
        )
    if image.shape[0] > 1:
        raise ExportError(
            f"{path}: batch: got a file for {image.shape[0]} images at a time ({got}), expected a free first dim or 1; "
            "next: export it again with a dynamic batch"
        )
    return image


def _find_layout(image: Tensor, options: Options, path: Path) -> tuple[Layout, int]:
    """Layout and number of channels."""
    by_layout: dict[Layout, int] = {"nchw": image.shape[1], "nhwc": image.shape[3]}
    fitting: list[Layout] = [layout for layout, size in by_layout.items() if size in {1, 3}]
    if options.layout is None and len(fitting) != 1:
        if max(by_layout.values()) > 0 or fitting:
            raise ExportError(
                f"{path}: input: got {list(image.shape)}, expected 1 or 3 channels in its second or its last dim; "
                "next: --layout nchw or nhwc"
            )
        fitting = ["nchw"]  # all are free: torch's order
    layout = options.layout or fitting[0]
    depth = by_layout[layout]
    if depth not in {1, 3} and depth > 0:
        raise ExportError(f"--layout {layout}: {path}: got {depth} channels in {list(image.shape)}, expected 1 or 3")
    return layout, depth if depth > 0 else 1 if options.channels == "grey" else 3


def _find_size(image: Tensor, options: Options, layout: Layout, path: Path) -> tuple[int, int]:
    """Height and width of the graph's input."""
    sides = image.shape[2:4] if layout == "nchw" else image.shape[1:3]
    size = options.size if options.size is None or not isinstance(options.size, int) else [options.size] * 2
    wanted = options.crop or size
    if wanted is None and min(sides) < 1:
        raise ExportError(
            f"{path}: input: got {list(image.shape)}, whose height and width are free, expected the size of the "
            "training; next: --crop 224, or --preprocessor preprocessor_config.json"
        )
    size_hw = tuple(own if own > 0 else side for own, side in zip(sides, wanted or sides, strict=True))
    if options.crop is not None and size_hw != tuple(options.crop):
        raise ExportError(f"--crop: got {_by(options.crop)}, expected {_by(size_hw)}, which {path} takes")
    if not all(1 <= side <= MAX_SIDE_PX for side in size_hw):
        raise ExportError(f"--crop: got {_by(size_hw)}, expected sides of 1 to {MAX_SIDE_PX}")
    return size_hw[0], size_hw[1]


def _make_resize(options: Options, size_hw: tuple[int, int]) -> dict[str, Any]:
    """`resize` of `parameters.metadata`."""
    sides = None if isinstance(options.size, int) or options.size is None else list(options.size)
    fit = options.fit or ("stretch" if sides or size_hw[0] != size_hw[1] else "shortest")
    if fit == "shortest" and sides:
        raise ExportError(f"--size {_by(sides)}: got two sides, expected that of the shorter one with --fit shortest")
    size: Any = sides or options.size or (max(size_hw) if fit == "shortest" else list(size_hw))
    least = [size, size] if isinstance(size, int) else size
    if any(side < kept for side, kept in zip(least, size_hw, strict=True)) or max(least) > MAX_SIDE_PX:
        raise ExportError(
            f"--size: got {_by(least)}, expected at least {_by(size_hw)}, which is cut out of it, and at most "
            f"{MAX_SIDE_PX}"
        )
    interpolation = options.interpolation or "bilinear"
    if interpolation not in FILTERS:
        raise ExportError(f"--interpolation: got {interpolation!r}, expected one of {', '.join(FILTERS)}")
    return {"fit": fit, "size": size, "interpolation": interpolation}


def _read_pixels(options: Options, image: Tensor, depth: int) -> Pixels:
    """The normalisation; it must be said, for a file does not."""
    if image.datatype in _WHOLE:
        if options.mean or options.std or options.scale not in (None, 1.0):
            raise ExportError(
                f"--mean, --std, --scale: got them for an input of {image.datatype.removeprefix('TYPE_')}, which takes "
                "pixels of 0 to 255; next: omit them"
            )
        return Pixels(1.0)
    if options.mean is None or options.std is None:
        missing = " and ".join(f"--{key}" for key in ("mean", "std") if getattr(options, key) is None)
        raise ExportError(
            f"{missing}: missing: no ONNX file says how pixels were normalised, expected what the training had, such "
            "as --mean imagenet --std imagenet (0.485 0.456 0.406, 0.229 0.224 0.225), --mean 0.5 --std 0.5, or "
            "--mean 0 --std 1 where the graph does it itself; or --preprocessor preprocessor_config.json"
        )
    scale = 1 / 255 if options.scale is None else options.scale
    for key, numbers in (("mean", options.mean), ("std", options.std)):
        if len(numbers) not in {1, depth} or not np.isfinite(numbers).all() or (key == "std" and min(numbers) <= 0):
            raise ExportError(
                f"--{key}: got {' '.join(map(str, numbers))}, expected one number or {depth}"
                f"{', above 0' if key == 'std' else ''}"
            )
    if not np.isfinite(scale) or scale <= 0:
        raise ExportError(f"--scale: got {scale}, expected a number above 0, such as 1/255 or 1")
    if abs(scale * 255 - 1) < 0.01 and max(options.mean) > 1:
        raise ExportError(
            f"--mean: got {' '.join(map(str, options.mean))} with pixels of 0 to 1 (--scale 1/255), expected at most "
            "1; next: --scale 1 for a mean of pixels of 0 to 255"
        )
    if scale == 1 and 0 < max(options.mean) <= 1 and max(options.std) <= 1:
        raise ExportError(
            f"--mean: got {' '.join(map(str, options.mean))} with pixels of 0 to 255 (--scale 1); next: --scale 1/255"
        )
    return Pixels(scale, tuple(options.mean), tuple(options.std))


def _run(image_hwc: NDArray[np.uint8], description: Description, source: Session) -> dict[str, NDArray[Any]]:
    return dict(source.infer(make_input(image_hwc, description, source)))


def _find_output(outputs: dict[str, NDArray[Any]], options: Options, path: Path) -> tuple[str, int]:
    """The output with a number for each class, and how many classes there are."""
    columns = {name: prod(each.shape[1:]) for name, each in outputs.items() if each.ndim > 1 and len(each) == 1}
    shown = ", ".join(f"{name} {list(each.shape)}" for name, each in outputs.items())
    if options.output is not None:
        if options.output not in columns:
            raise ExportError(f"--output {options.output}: {path} has {shown}, expected one of (1, classes)")
        columns = {options.output: columns[options.output]}
    if options.labels is None:
        if len(columns) != 1 or max(columns.values()) > MAX_LABELS:
            raise ExportError(f"{path}: outputs: got {shown}, expected one of (1, classes); next: --output, --labels")
        ((output, count),) = columns.items()
        return output, max(count, 2)
    names = list(options.labels)
    if not all(names):
        raise ExportError(f"--labels: got an empty name for class {names.index('')}, expected a name for each class")
    # One number is the probability of the second of two classes.
    fitting = [output for output, count in columns.items() if len(names) == (count if count > 1 else 2)]
    if len(fitting) != 1:
        more = "one class more: is the first label of it a background?" if len(names) + 1 in columns.values() else ""
        raise ExportError(
            f"--labels: got {len(names)}, expected as many as an output has: {shown}{'; ' if more else ''}{more}"
            if not fitting
            else f"{path}: outputs: {' and '.join(fitting)} both have {len(names)} numbers; next: --output {fitting[0]}"
        )
    return fitting[0], len(names)


def _decide_softmax(numbers: NDArray[np.float64], wanted: Softmax, output: str) -> bool:
    """Whether the graph returns logits; `numbers` is `(images, columns)`."""
    if wanted != "auto":
        return wanted == "yes"
    if numbers.min() < 0 or numbers.max() > 1:
        return True
    if numbers.shape[1] == 1:  # of one class: a sigmoid has been
        return False
    if np.abs(numbers.sum(axis=1) - 1).max() <= _SUM:
        return False
    raise ExportError(
        f"--softmax: {output} has numbers of {numbers.min():.3g} to {numbers.max():.3g} that do not add up to 1: "
        "logits or a probability for each class by itself; next: --softmax yes, or no"
    )


def _normalise(model: ModelProto, output: str) -> ModelProto:
    """The graph with this output alone, as `normalise` gives it."""
    chosen = deepcopy(model)
    kept = [value for value in chosen.graph.output if value.name == output]
    del chosen.graph.output[:]
    chosen.graph.output.extend(kept)
    normalised = normalise(chosen)
    prune(normalised.graph)
    return normalised


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
