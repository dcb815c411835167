"""Checks `parameters.metadata` of a config: what the transformer allocates memory by."""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.errors import VersionRejected
from registry.judgement.limits import (
    MAX_CHANNELS,
    MAX_ELEMENTS,
    MAX_KEYPOINTS,
    MAX_LABEL,
    MAX_LABELS,
    MAX_SIDE_PX,
    MAX_STRIDE,
)
from registry.judgement.rules import multiply, shorten


def check_metadata(config: ModelConfig) -> None:
    """Check the numbers and texts by which the transformer allocates memory; the rest it checks itself.

    Raises:
        VersionRejected: the metadata is not a Python dict, or has a value beyond its limit.
    """
    if "metadata" not in config.parameters:
        return
    text = config.parameters["metadata"].string_value
    try:
        metadata = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested deeply
        metadata = None
    if not isinstance(metadata, dict):
        raise VersionRejected(f"parameters.metadata: got {shorten(text)}, expected a Python dict")
    given = {key: value for key, value in metadata.items() if value is not None}
    _check_image(given)
    for key in ("names", "features", "missing"):
        _check_texts(key, given.get(key, ()))
    _check_keypoints(given)
    _check_texts("categories", _read_categories(given.get("categories", {})))


def _check_image(given: Mapping[str, Any]) -> None:
    imgsz = given.get("imgsz", 1)
    sides = _read_numbers("imgsz", imgsz if isinstance(imgsz, list | tuple) else [imgsz, imgsz], MAX_SIDE_PX)
    channels = _read_numbers("channels", [given.get("channels", 1)], MAX_CHANNELS)
    _read_numbers("stride", [given.get("stride", 1)], MAX_STRIDE)
    if multiply((*sides, *channels), most=MAX_ELEMENTS) > MAX_ELEMENTS:
        raise VersionRejected(
            f"parameters.metadata: imgsz: got {shorten(imgsz)}, expected at most {MAX_ELEMENTS} elements"
        )


def _check_keypoints(given: Mapping[str, Any]) -> None:
    """Check how many keypoints there are, of an object and of all classes together: each has a name."""
    shape = given.get("kpt_shape", (1, 2))
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        raise VersionRejected(f"parameters.metadata: kpt_shape: got {shorten(shape)}, expected two whole numbers")
    count, _ = _read_numbers("kpt_shape", shape, MAX_KEYPOINTS)
    classes = len(given.get("names", ()))
    if count * classes > MAX_LABELS:
        raise VersionRejected(
            f"parameters.metadata: kpt_shape: got {count} keypoints of {classes} classes, expected at most {MAX_LABELS}"
            " in all"
        )


def _read_categories(categories: Any) -> list[Any]:
    """Names of columns and of categories; numbers among the categories are left out."""
    if not isinstance(categories, dict) or not all(isinstance(own, list | tuple) for own in categories.values()):
        raise VersionRejected(f"parameters.metadata: categories: got {shorten(categories)}, expected a dict of lists")
    if sum(map(len, categories.values())) > MAX_LABELS:
        raise VersionRejected(f"parameters.metadata: categories: got too many, expected at most {MAX_LABELS} in all")
    texts = [value for own in categories.values() for value in own if not isinstance(value, int | float)]
    return [*categories, *texts]


def _check_texts(key: str, words: Any) -> None:
    words = list(words.values()) if isinstance(words, dict) else words
    if not isinstance(words, list | tuple):
        raise VersionRejected(f"parameters.metadata: {key}: got {shorten(words)}, expected a dict or a list")
    if len(words) > MAX_LABELS:
        raise VersionRejected(f"parameters.metadata: {key}: got {len(words)}, expected at most {MAX_LABELS}")
    for word in words:
        if not isinstance(word, str) or len(word) > MAX_LABEL:
            expected = f"texts of at most {MAX_LABEL} characters"
            raise VersionRejected(f"parameters.metadata: {key}: got {shorten(word)}, expected {expected}")


def _read_numbers(key: str, numbers: Iterable[Any], most: int) -> list[int]:
    read = []
    for number in numbers:
        is_whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
        if not is_whole or not 1 <= number <= most:
            raise VersionRejected(
                f"parameters.metadata: {key}: got {shorten(number)}, expected a whole number from 1 to {most}"
            )
        read.append(int(number))
    return read
