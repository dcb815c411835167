"""Compares the outputs of a version for its golden input with those of its export."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import VersionRejected
from registry.golden import Arrays
from registry.golden_objects import Objects, measure_rest, read_objects

# Another ONNX Runtime, or a GPU in half precision, differs a little.
_RELATIVE, _ABSOLUTE = 0.02, 0.02
_BOXES_PX, _SCORES = 4.0, 0.05
# In bf16, FP16 and int8 the noise is in the logits: YOLOv8n in bf16 returns 0.58 instead of 0.35, while 0.9 stays 0.9.
_LOGITS = 1.5
_COMPARED = 50  # candidates of a detector, the best ones: the order of others is chance
_COARSE = 4  # times the tolerance of keypoints, angles and masks in less than FP32
_MEANINGFUL = 0.05  # below this score a candidate may be any other
# Below this score two classes of a candidate are about as likely: in less than FP32 the other one may win, of some.
_UNSURE, _MOST_OF_ANOTHER_CLASS = 0.25, 1 / 4
_MOST_OF_MAP = {True: 0.01, False: 0.1}  # by whether the run is exact: bf16, FP16 and int8 move borders
_NEAREST_M = 0.01
_COMPARED_AT_ONCE = 2**20  # numbers
_LONGEST_METADATA = 2**16  # characters that are parsed here: valid metadata may hold a hundred thousand names


def check_golden_outputs(outputs: Arrays, expected: Arrays, config: Any) -> None:
    """Compare outputs with the expected ones: a detector's confident candidates as detections, else number by number.

    Args:
        outputs: by tensor name, with their batch dimension.
        expected: likewise.
        config: `ModelConfig` of the run.

    Raises:
        VersionRejected: they differ by more than hardware and precision explain.
    """
    check_form(outputs, config)
    for name, want in expected.items():
        got = outputs.get(name)
        if got is None or got.shape != want.shape:
            shape = "nothing" if got is None else list(got.shape)
            raise VersionRejected(f"golden input: output {name!r}: got {shape}, expected {list(want.shape)}")
    metadata = read_metadata(config)
    differ = _MAPS.get(str(metadata.get("task"))) if len(expected) == 1 else None
    if differ:
        _compare_map(outputs, expected, differ, most=_MOST_OF_MAP[_is_exact(config)])
        return
    wanted, found = (read_objects(arrays, metadata) for arrays in (expected, outputs))
    if not _is_exact(config) and metadata.get("task") == "classify":
        _compare_probabilities(outputs, expected)
    elif wanted is None or found is None:
        _compare(outputs, expected)
    else:
        _compare_detections(found, wanted, is_exact=_is_exact(config))


def read_metadata(config: Any, *, longest: int = _LONGEST_METADATA) -> Mapping[str, Any]:
    """`parameters.metadata`; empty where it is not a dict, or has more than `longest` characters."""
    text = config.parameters["metadata"].string_value if "metadata" in config.parameters else ""
    if len(text) > longest:
        return {}
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested deeply
        return {}
    return metadata if isinstance(metadata, dict) else {}


def check_form(outputs: Arrays, config: Any) -> None:
    """Check that outputs are finite numbers in the dims that the config declares."""
    for tensor in config.output:
        array = outputs.get(tensor.name)
        if array is None:
            raise VersionRejected(f"output {tensor.name!r}: got nothing, expected {list(tensor.dims)}")
        dims = array.shape[1:] if config.max_batch_size else array.shape
        if len(dims) != len(tensor.dims) or any(
            want not in {-1, got} for got, want in zip(dims, tensor.dims, strict=True)
        ):
            raise VersionRejected(f"output {tensor.name!r}: got dims {list(dims)}, expected {list(tensor.dims)}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            raise VersionRejected(f"output {tensor.name!r}: got {count} of {array.size} numbers NaN or infinite")


def _compare(outputs: Arrays, expected: Arrays) -> None:
    for name, want in expected.items():
        got = outputs[name]
        if not np.issubdtype(want.dtype, np.number):
            if not np.array_equal(got, want):
                raise VersionRejected(f"golden input: output {name!r} differs from that of the export")
            continue
        for start in range(0, want.size, _COMPARED_AT_ONCE):
            some, sought = (array.reshape(-1)[start : start + _COMPARED_AT_ONCE] for array in (got, want))
            excess = np.abs(some.astype(np.float64) - sought) - (_ABSOLUTE + _RELATIVE * np.abs(sought))
            if not excess.max() <= 0:
                at = np.unravel_index(start + int(excess.argmax()), want.shape)
                raise VersionRejected(
                    f"golden input: output {name!r}{[int(i) for i in at]}: got {got[at]:.6g}, expected {want[at]:.6g}"
                )


def _compare_probabilities(outputs: Arrays, expected: Arrays) -> None:
    """Compare a classifier's probabilities as scores of detections are compared in less than FP32."""
    for name, want in expected.items():
        rise = np.abs(_rise(outputs[name].astype(np.float64), want.astype(np.float64), is_exact=False))
        if not rise.max(initial=0) <= 1:
            at = np.unravel_index(int(rise.argmax()), want.shape)
            got, place = outputs[name][at], [int(i) for i in at]
            raise VersionRejected(f"golden input: output {name!r}{place}: got {got:.4g}, expected {want[at]:.4g}")


def _classes_apart(got: NDArray[Any], want: NDArray[Any]) -> float:
    """The share of pixels of another class: beside a border a last bit decides."""
    return float(np.mean(got != want))


def _depth_apart(got: NDArray[Any], want: NDArray[Any]) -> float:
    """The mean difference of a pixel, relative to its distance."""
    return float(np.mean(np.abs(got.astype(np.float64) - want) / np.maximum(np.abs(want), _NEAREST_M)))


# Tasks whose only output has a value for each pixel.
_MAPS: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "semantic": _classes_apart,
    "depth": _depth_apart,
}


def _compare_map(
    outputs: Arrays, expected: Arrays, differ: Callable[[NDArray[Any], NDArray[Any]], float], *, most: float
) -> None:
    for name, want in expected.items():
        apart = differ(outputs[name], want)
        if not apart <= most:
            raise VersionRejected(
                f"golden input: output {name!r} differs by {apart:.4f} from that of the export, expected at most {most}"
            )


def _compare_detections(found: Objects, wanted: Objects, *, is_exact: bool) -> None:
    """Look up each of the best candidates; their order may differ where scores are close."""
    for row in range(len(wanted.scores)):
        boxes, scores, classes = wanted.boxes[row], wanted.scores[row], wanted.classes[row]
        got_scores = found.scores[row]
        compared = [i for i in np.argsort(-scores)[:_COMPARED] if scores[i] >= _MEANINGFUL]
        others_left = 0 if is_exact else max(1, int(_MOST_OF_ANOTHER_CLASS * len(compared)))
        for index in compared:
            near = np.abs(found.boxes[row] - boxes[index]).max(axis=1) <= _BOXES_PX
            near &= np.abs(_rise(got_scores, scores[index], is_exact=is_exact)) <= 1
            same = near & (found.classes[row] == classes[index])
            if not same.any() and near.any() and scores[index] < _UNSURE and others_left:
                others_left -= 1
                same = near
            where = f"class {classes[index]}, score {scores[index]:.3f} at {_write(boxes[index])}"
            if not same.any():
                raise VersionRejected(f"golden input: got nothing like {where}")
            apart = [measure_rest(wanted, found, row, index, int(other)) for other in np.flatnonzero(same)]
            if min(apart) > (1 if is_exact else _COARSE):
                raise VersionRejected(f"golden input: got another {wanted.rest_name} of {where}")
        high = got_scores[_rise(got_scores, scores.max(initial=0), is_exact=is_exact) >= 1]
        if high.size:
            raise VersionRejected(
                f"golden input: got a score of {high.max():.3f}, expected at most {scores.max(initial=0):.3f}"
            )


def _write(box: NDArray[Any]) -> str:
    return ", ".join(f"{value:.1f}" for value in box)


def _rise(got: NDArray[Any], score: Any, *, is_exact: bool) -> NDArray[Any]:
    """The difference of scores from another one, in units of the tolerance: between -1 and 1 they agree."""
    rise: NDArray[Any] = (got - score) / _SCORES
    if is_exact:
        return rise
    logits, logit = (np.log(value / (1 - value)) for value in (np.clip(it, 1e-6, 1 - 1e-6) for it in (got, score)))
    by_logits = (logits - logit) / _LOGITS
    return np.where(np.abs(by_logits) < np.abs(rise), by_logits, rise)


def _is_exact(config: Any) -> bool:
    """Whether a config runs a model in its own precision."""
    if config.backend == "openvino":
        return "INFERENCE_PRECISION_HINT" in config.parameters  # which can say f32 alone
    return bool(config.backend == "onnxruntime" and not config.optimization.HasField("execution_accelerators"))
