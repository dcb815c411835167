"""`nereid profiles`: what is said of the figures, and which version they are of."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtest.errors import LoadTestError
from loadtest.profiles import Figures, Subject, advise, draw, find
from registry.errors import VersionRejected

FILE = {"sha256": "0" * 64, "size_bytes": 1}
MANIFEST: dict[str, Any] = {
    "model": "m",
    "version": "1",
    "task": "detect",
    "interface": "fused",
    "created": "2026-11-27T07:26:23+00:00",
    "source": {"name": "m.onnx", "sha256": "0" * 64},
    "tools": {"onnx": "1.23.2"},
    "files": dict.fromkeys(("model.onnx", "config.pbtxt", "parity.json", "golden.npz"), FILE),
}
PRECISIONS = {
    "bf16": {"metric": "box", "map50_95": 0.91, "fp32": 0.912, "change": -0.002},
    "int8": {"metric": "box", "map50_95": 0.9, "fp32": 0.912, "change": -0.012},
}


def figures(*requests_per_s: float, precision: float | None = None, change: float | None = None) -> Figures:
    by_connections = dict(zip((1, 4), requests_per_s, strict=True))
    times_ms = {connections: 1000 * connections / rate for connections, rate in by_connections.items()}
    return Figures("OpenVINO, FP32", by_connections, times_ms, times_ms, 300.0, precision, change)


@pytest.mark.parametrize(
    ("others", "advice"),
    [
        ({}, "take fp32: no other profile is quicker here"),
        (
            {
                "fast": figures(12, 15, precision=0.91, change=-0.002),
                "int8": figures(11, 13, precision=0.9, change=-0.01),
            },
            "take fast: 1.20 to 1.50 times the requests/s of fp32; accuracy 0.9100 in place of 0.9120",
        ),
        (
            {"fast": figures(9.7, 20, precision=0.912, change=0.0)},
            "take fast: 0.97 to 2.00 times the requests/s of fp32; accuracy is the same",
        ),
        (
            {"fast": figures(5, 30)},
            "take fp32: no other profile is quicker here; fast has 0.50 times its requests/s at worst",
        ),
        (
            {"fast": figures(10.2, 10.2)},
            "take fp32: no other profile is quicker here; fast has 1.02 times its requests/s at worst",
        ),
        (
            {"int8": figures(12, 12)},
            "take int8: 1.20 to 1.20 times the requests/s of fp32; what it costs in accuracy was not measured: "
            "nereid export ... --precision ... --calibration <folder>",
        ),
    ],
)
def test_advice_is_never_a_profile_that_is_slower_somewhere(others: Mapping[str, Figures], advice: str) -> None:
    assert advise({"fp32": figures(10, 10, precision=0.912, change=0.0), **others}) == advice


def test_table_has_a_row_for_each_profile() -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(draw({"fp32": figures(10, 10), "fast": figures(12, 15, precision=0.91, change=-0.002)}, "title"))
    text = console.export_text()
    assert "requests/s at 1 / 4" in text
    assert "12.0 / 15.0" in text
    assert "0.9100 (-0.0020)" in text


def make(repository: Path, version: str, *, manifest: Mapping[str, Any] | None, profiles: tuple[str, ...] = ()) -> None:
    folder = repository / "m" / version
    folder.mkdir(parents=True)
    for profile in profiles:
        (folder / f"{profile}.pbtxt").touch()
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))


def test_newest_complete_version_is_measured(tmp_path: Path) -> None:
    make(tmp_path, "2", manifest=MANIFEST, profiles=("fast", "gpu"))
    make(tmp_path, "10", manifest=MANIFEST, profiles=("fast", "int8", "tensorrt"))
    make(tmp_path, "11", manifest=None)
    subject = find(tmp_path, "m")
    assert (subject.version.name, subject.profiles) == ("10", ["fp32", "fast", "int8"])
    assert subject.image.is_file()
    with pytest.raises(LoadTestError, match=r"none: got no version with manifest.json, expected one of m; next: "):
        find(tmp_path, "none")


@pytest.mark.parametrize(
    ("profile", "bf16", "expected"),
    [
        ("fp32", False, (0.912, 0.0)),
        ("fast", True, (0.91, -0.002)),
        ("fast", False, (0.912, 0.0)),
        ("int8", False, (0.9, -0.012)),
    ],
)
def test_accuracy_is_that_of_what_runs(profile: str, bf16: bool, expected: tuple[float, float]) -> None:
    assert Subject("m", Path(), {"precisions": PRECISIONS}).precision(profile, bf16=bf16) == expected
    not_measured = Subject("m", Path(), {}).precision(profile, bf16=bf16)
    assert not_measured == (None, 0.0 if expected[1] == 0 else None)


def test_model_without_images_and_a_broken_manifest_are_rejected(tmp_path: Path) -> None:
    make(tmp_path, "1", manifest=MANIFEST | {"task": "tabular"})
    with pytest.raises(LoadTestError, match="m: got task 'tabular', expected classify, depth, detect, obb"):
        find(tmp_path, "m")
    make(tmp_path, "2", manifest={})
    with pytest.raises(VersionRejected, match="required property"):
        find(tmp_path, "m")
