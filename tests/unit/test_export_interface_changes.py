"""Changes of a new version that clients of a model would notice, and the URL of its server."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from export.errors import ExportError
from export.publish.interface_changes import check_same
from export.publish.server_client import connect
from export.writer.config import describe_classifier, describe_detector, describe_table

IRIS = ("sepal length", "sepal width", "petal length", "petal width")
NAMES = {0: "a", 1: "b"}


def _table(features: Sequence[str], names: Any = NAMES, *, datatype: str = "FP32") -> Any:
    metadata = {"task": "tabular", "features": features, "names": names}
    output = ("probabilities", len(names)) if names else ("values", 1)
    return describe_table("t", inputs={"input": (datatype, len(features))}, output=output, metadata=metadata)


def _detector(names: Any = NAMES, *, interface: Any = "fused", size_hw: tuple[int, int] | None = None) -> Any:
    metadata = {"task": "detect", "imgsz": [64, 64], "stride": 32, "names": names}
    return describe_detector("t", interface=interface, size_hw=size_hw, classes=len(names), metadata=metadata)


def _classifier(channels: int = 1) -> Any:
    metadata = {"task": "classify", "imgsz": [8, 8], "channels": channels, "names": NAMES}
    return describe_classifier("t", size_hw=(8, 8), channels=channels, metadata=metadata)


@pytest.mark.parametrize(
    ("now", "new"),
    [
        (_table(IRIS), _table(list(IRIS), ["a", "b"])),
        (_table(IRIS), _table(IRIS, datatype="FP64")),  # rows may come as either
        (_detector(), _detector(size_hw=(64, 64))),
        (_classifier(), _classifier(3)),  # the transformer makes an image fit
    ],
)
def test_change_that_clients_do_not_notice_is_accepted(now: Any, new: Any) -> None:
    check_same(now, new, serves=1)


@pytest.mark.parametrize(
    ("now", "new", "expected"),
    [
        (
            _table([f"f{index}" for index in range(13)]),
            _table(IRIS),
            r"features: got 4 \(sepal length, .*expected 13 \(f0, ",
        ),
        (_table(IRIS), _table(IRIS[::-1]), r"features: got 4 \(petal width, "),
        (_table(IRIS), _table(IRIS, {0: "a", 1: "b", 2: "c"}), r"classes: got 3 \(c, ...\), expected 2 \(a, b\)"),
        (_table(IRIS), _table(IRIS, None), r"outputs: got 1 \(values FP32 \[1\]\), expected 1 \(probabilities FP32"),
        (_detector(), _detector({0: "b", 1: "a"}), r"classes: got 2 \(b, a\), expected 2 \(a, b\)"),
        (_detector(), _detector(interface="ultralytics"), r"inputs: got 1 \(images FP32\), expected 1 \(image UINT8\)"),
        (_detector(), _classifier(), "task: got classify, expected detect"),
    ],
)
def test_change_of_the_interface_is_rejected(now: Any, new: Any, expected: str) -> None:
    with pytest.raises(ExportError, match=r"t: version 7 serves, .*FORCE=1") as rejected:
        check_same(now, new, serves=7)
    assert re.search(expected, str(rejected.value)), str(rejected.value)


@pytest.mark.parametrize("url", ["localhost:8080", "127.0.0.1:8080", "ftp://localhost", "//localhost"])
def test_url_of_a_server_has_its_scheme(url: str) -> None:
    with pytest.raises(ExportError, match=f"got '{url}', expected such as http://localhost:8080"), connect(url):
        pass
