"""Responses of Nereid as regions of Label Studio: percent of the upright image, as a browser shows it."""

import math
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from integrations.label_studio.labelling_config import Control
from integrations.nereid_client import Model, decode_mask

# Bits of the lengths that a run may have, in Label Studio's masks (rle-pack of thi.ng, which its editor reads).
_RUN_BITS = (3, 4, 8, 16)
# Of a keypoint's dot, in percent of the width of the image: the default of Label Studio's editor.
_DOT = 0.5


def regions(response: dict[str, Any], model: Model, controls: list[Control]) -> list[dict[str, Any]]:
    """The regions of one image; objects whose class no label names are left out."""
    size_wh = (response["image"]["width"], response["image"]["height"])
    if model.task == "classify":
        return [region for control in controls for region in _choice(response, control, size_wh)]
    return [region for found in response["predictions"] for region in _object(found, model, controls, size_wh)]


def _choice(response: dict[str, Any], control: Control, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    label = control.label(str(response["top"])) if response["predictions"] else None
    return [_region(control, label, response["confidence"], size_wh, {})] if label else []


def _object(
    found: dict[str, Any], model: Model, controls: list[Control], size_wh: tuple[int, int]
) -> list[dict[str, Any]]:
    boxes: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for control in controls:
        if control.kind == "KeyPointLabels":
            for point in found["keypoints"]:
                if label := control.label(point["class"]):
                    value = _percent(point, size_wh) | {"width": _DOT}
                    points.append(_region(control, label, point["confidence"], size_wh, value))
        elif label := control.label(found["class"]):
            shapes = _shapes(found, control, size_wh)
            boxes += [_region(control, label, found["confidence"], size_wh, shape) for shape in shapes]
    # Points belong to the box of their object, where the config shows boxes of a pose.
    parent = {"parentID": boxes[0]["id"]} if boxes and model.task == "pose" else {}
    return boxes + [point | parent for point in points]


def _shapes(found: dict[str, Any], control: Control, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    match control.kind:
        case "PolygonLabels":
            rings = [found["corners"]] if "corners" in found else found.get("parts") or [found["points"]]
            return [
                {"points": [list(_percent(point, size_wh).values()) for point in ring], "closed": True}
                for ring in rings
            ]
        case "BrushLabels":
            return [{"format": "rle", "rle": brush_rle(decode_mask(found["rle"]))}]
        case _:
            return [_rectangle(found.get("rotated_box") or found, size_wh)]


def _rectangle(box: dict[str, float], size_wh: tuple[int, int]) -> dict[str, float]:
    """x, y is the corner that a rectangle turns about, which is its top left one before it is turned."""
    angle = box.get("rotation", 0.0)
    x, y = -box["width"] / 2, -box["height"] / 2
    corner = {
        "x": box["x"] + x * math.cos(angle) - y * math.sin(angle),
        "y": box["y"] + x * math.sin(angle) + y * math.cos(angle),
    }
    size = _percent({"x": box["width"], "y": box["height"]}, size_wh)
    return _percent(corner, size_wh) | {"width": size["x"], "height": size["y"], "rotation": math.degrees(angle)}


def _percent(point: dict[str, float], size_wh: tuple[int, int]) -> dict[str, float]:
    return {"x": 100 * point["x"] / size_wh[0], "y": 100 * point["y"] / size_wh[1]}


def _region(
    control: Control, label: str, score: float, size_wh: tuple[int, int], value: dict[str, Any]
) -> dict[str, Any]:
    name = control.kind.lower()
    return {
        "id": uuid4().hex[:10],
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": name,
        "original_width": size_wh[0],
        "original_height": size_wh[1],
        "image_rotation": 0,
        "score": score,
        "value": value | {name: [label]},
    }


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Bytes of a mask `(height, width)` as BrushLabels have it: runs of the bytes of an RGBA image, 0 or 255."""
    values = np.repeat(mask.reshape(-1).astype(np.uint8) * 255, 4)
    starts = np.flatnonzero(np.diff(values, prepend=values[0] ^ 255))
    bits = [f"{values.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for start, end in zip(starts, [*starts[1:], values.size], strict=True):
        for first in range(start, end, 1 << _RUN_BITS[-1]):
            length = min(end - first, 1 << _RUN_BITS[-1])
            which = next(index for index, size in enumerate(_RUN_BITS) if length <= 1 << size)
            bits.append(f"1{which:02b}{length - 1:0{_RUN_BITS[which]}b}{int(values[start]):08b}")
    joined = "".join(bits)
    joined += "0" * (-len(joined) % 8)
    return list(int(joined, 2).to_bytes(len(joined) // 8, "big"))
