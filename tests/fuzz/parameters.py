"""Parameters of requests to the shipped models for images: values that they take, and values that break readers."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from hypothesis import strategies as st

Parameters = Mapping[str, Any]

_CLASSES: Mapping[str, list[Any]] = {"confidence": [0, 0.01, "0.25", 1], "classes": [7, "7", "1,2", ["0", 9]]}
_CLASSIFIER: Mapping[str, list[Any]] = {**_CLASSES, "top_k": [1, "3", 1000]}
_FINDER: Mapping[str, list[Any]] = {
    **_CLASSES,
    "iou": [0, "0.5", 1],
    "max_detections": [1, "9", 1000],
    "then": ["digits", "digit-classes"],
}
VALUES: Mapping[str, Mapping[str, list[Any]]] = {
    "digits": _CLASSIFIER,
    "digit-classes": _CLASSIFIER,
    "digit-finder": _FINDER,
    "digit-outlines": {**_FINDER, "mask": ["polygon", "rle", "none"]},
    "digit-strokes": {**_FINDER, "keypoint_confidence": [0, "0.5", 1]},
    "tilted-digits": _FINDER,
}
"""By model and parameter."""
MODELS = sorted(VALUES)

_NAMES = sorted({name for values in VALUES.values() for name in values} | {"masks", "", "\0", "confidence "})
_BROKEN: list[Any] = [
    *("", " ", "0", "-0", "-1", "1.5", "nan", "inf", "1e999", "1e-400", "0x1", "1_0", "٣", "9" * 400, "1" * 5000),
    *("polygon ", "RLE", "rle,none", "null", "iris", "digit-outlines", "../digits", "\0", "\udc00", "a" * 70_000),
    *(-1, 0, 1.5, 2**31, 10**30, 1e308, True, None, [], [[]], ["0", None], {}, {"b64": "AA=="}, [0] * 10_001),
]
_FEW = 9  # objects that a second model classifies


@st.composite
def parameters(draw: st.DrawFn, model: str) -> dict[str, Any]:
    """None to three parameters; most fit the model, and about every eighth value is broken."""
    known = sorted(VALUES[model])
    names = draw(st.lists(st.sampled_from(known * 9 + _NAMES), max_size=3, unique=True))
    drawn = {}
    for name in names:
        values = VALUES[model].get(name, _BROKEN)
        drawn[name] = draw(st.sampled_from(_BROKEN if draw(st.integers(0, 7)) == 0 else values))
    if "then" in drawn:
        drawn["max_detections"] = _FEW
    return drawn


def query(given: Parameters) -> str:
    """As the query of a URL, with the mark before it; empty where there are none."""
    pairs = [
        (name, str(value))
        for name, values in given.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return "?" + urlencode(pairs, errors="surrogatepass") if pairs else ""
