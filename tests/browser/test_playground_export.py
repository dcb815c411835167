"""What the playground hands out: files that other tools read, and code that runs as copied."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.stack import ROOT, Stack

PICTURES = ROOT / "loadtest/pictures"


@pytest.fixture
def download(page: Page) -> Callable[[str], Path]:
    """The file that a button saves."""

    def press(name: str) -> Path:
        with page.expect_download() as saved:
            page.get_by_role("button", name=name, exact=True).click()
        return Path(saved.value.path())

    return press


@pytest.mark.parametrize("model", ["digit-finder", "digit-outlines", "digit-strokes", "tilted-digits"])
def test_files_hold_what_the_server_responds(
    stack: Stack, use: Callable[..., None], download: Callable[[str], Path], model: str
) -> None:
    use(f"model={model}")
    image = (PICTURES / "digits.jpg").read_bytes()
    expected = stack.http.post(f"/predict/{model}", files={"image": image}).json()
    saved = json.loads(download("JSON").read_text())
    assert _comparable(saved["predictions"]) == _comparable(expected["predictions"])
    coco = json.loads(download("COCO").read_text())
    assert [each["category_id"] for each in coco["annotations"]] == [
        each["class_id"] for each in expected["predictions"]
    ]
    assert [each["id"] for each in coco["annotations"]] == list(range(1, len(expected["predictions"]) + 1))
    names = {each["id"]: each["name"] for each in coco["categories"]}
    lines = download("YOLO").read_text().splitlines()
    assert len(lines) == len(expected["predictions"])
    for annotation, line, found in zip(coco["annotations"], lines, expected["predictions"], strict=True):
        box = found["box"]
        assert annotation["bbox"] == [box["x1"], box["y1"], found["width"], found["height"]]
        assert names[annotation["category_id"]] == found["class"]
        assert annotation["area"] > 0
        _compare_line(model, [float(each) for each in line.split()], found)
    annotated = np.asarray(Image.open(download("Annotated PNG")).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(PICTURES / "digits.jpg")).astype(int)
    assert annotated.shape == plain.shape
    assert 0.01 < (np.abs(annotated - plain).max(axis=2) > 60).mean() < 0.5


def _comparable(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "detection_id"} for each in predictions]


def _compare_line(model: str, numbers: list[float], found: dict[str, Any]) -> None:
    class_id, *rest = numbers
    assert class_id == found["class_id"]
    pixels = [each * 320 for each in rest]
    if model in {"digit-finder", "digit-strokes"}:
        assert pixels[:4] == pytest.approx([found[name] for name in ("x", "y", "width", "height")], abs=0.01)
    if model == "digit-strokes":
        keypoints = [value for each in found["keypoints"] for value in (each["x"], each["y"], 640)]
        assert pixels[4:] == pytest.approx(keypoints, abs=0.01)
    if model in {"digit-outlines", "tilted-digits"}:
        ring = found["points"] if model == "digit-outlines" else found["corners"]
        clipped = [min(max(value, 0), 320) for each in ring for value in (each["x"], each["y"])]
        assert pixels == pytest.approx(clipped, abs=0.01)


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools, by NumPy 2
def test_coco_file_is_read_by_pycocotools(
    use: Callable[..., None], download: Callable[[str], Path], tmp_path: Path
) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is missing; next: pip install pycocotools")
    areas = {}
    for form in ("polygon", "rle"):
        use(f"model=digit-outlines&mask={form}")
        (tmp_path / form).write_text(download("COCO").read_text())
        data = coco.COCO(tmp_path / form)
        masks = [data.annToMask(each) for each in data.loadAnns(data.getAnnIds())]
        assert {mask.shape for mask in masks} == {(320, 320)}
        areas[form] = [int(mask.sum()) for mask in masks]
    assert areas["polygon"] == pytest.approx(areas["rle"], rel=0.1)


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ("model=digit-finder&version=1&confidence=0.9", "digits.jpg"),
        ("model=digit-outlines&classes=7&classes=2", "digits.jpg"),
        ("model=digits&top_k=2", "seven.png"),
        ("model=digit-finder&then=digits&confidence=0.6", "digits.jpg"),
    ],
)
def test_code_runs_as_copied(page: Page, use: Callable[..., None], settings: str, image: str) -> None:
    use(settings, image)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name in ("curl", "Python (httpx)", "tritonclient", "kserve"):
        printed = _run(_copy(page, name), name)
        assert "confidence" in printed or "class" in printed, printed


def test_code_of_rows_runs_as_copied(page: Page) -> None:
    page.goto("/#model=iris")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert "setosa" in _run(_copy(page, "curl"), "curl")  # before a row is typed in
    page.get_by_role("button", name="Example", exact=True).click()
    page.get_by_role("button", name="Send the rows").click()
    expect(page.locator(".output")).to_contain_text("virginica")
    for name in ("curl", "Python (httpx)", "tritonclient", "kserve"):
        printed = _run(_copy(page, name), name)
        assert "virginica" in printed, printed
        assert "setosa" in printed, printed


def _copy(page: Page, name: str) -> str:
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    return str(page.evaluate("navigator.clipboard.readText()"))


def _run(code: str, name: str) -> str:
    command = ["bash", "-c", code] if name == "curl" else [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command,
        cwd=PICTURES,
        env=os.environ | {"NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {done.stderr}\n{code}"
    return done.stdout
