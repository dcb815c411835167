"""Maps of classes and of depth in the playground, whose PNGs a canvas alone would round to eight bits."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.stack import ROOT
from tests.support.watched import find_barriers, shot
from transformer.imaging.encoding import encode_grey

PICTURE = ROOT / "loadtest/pictures/digits.jpg"
_READ = """async (png) => {
  const { readGrey } = await import("./playground/maps.js");
  const { width, height, values } = await readGrey(png);
  return { width, height, values: [...values] };
}"""


def _png(values: Any) -> str:
    return base64.b64encode(encode_grey(values, otherwise="")).decode()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_of_a_map_is_read(page: Page, dtype: Any) -> None:
    page.goto("/")
    most = np.iinfo(dtype).max
    noise = np.random.default_rng(0).integers(0, most, (37, 53), dtype)
    slope = np.linspace(0, most, 64 * 48).reshape(48, 64).astype(dtype)
    for values in (noise, slope, slope.T.copy(), np.zeros((1, 1), dtype)):
        read = page.evaluate(_READ, _png(values))
        assert (read["height"], read["width"]) == values.shape
        assert read["values"] == values.ravel().tolist()


def _serve(page: Page, task: str, names: list[str], members: dict[str, Any]) -> None:
    """Have the page get a response of a task that no shipped model has."""

    def describe(route: Any) -> None:
        document = route.fetch().json()
        document["parameters"] |= {"task": task, "names": names, "class_ids": list(range(len(names)))}
        route.fulfill(json=document)

    def respond(route: Any) -> None:
        document = route.fetch(url=route.request.url.partition("?")[0]).json()
        document["model"]["task"] = task
        del document["predictions"]
        route.fulfill(json=document | members)

    page.route("**/v2/models/digit-finder", describe)
    page.route("**/predict/digit-finder*", respond)
    page.goto("/#model=digit-finder&opacity=1")
    expect(page.locator(".facts .tag")).to_have_text(task)
    page.set_input_files("#file", PICTURE)
    expect(page.locator(".timing")).to_be_visible()


def _annotated(page: Page) -> Any:
    with page.expect_download() as saved:
        page.get_by_role("button", name="Annotated PNG").click()
    return np.asarray(Image.open(Path(saved.value.path())).convert("RGB")).astype(int)


def test_classes_of_pixels_are_drawn_and_chosen(page: Page) -> None:
    values = np.zeros((320, 320), np.uint8)
    values[:, 160:] = 1
    predictions = [
        {"class": "road", "class_id": 0, "pixel_ratio": 0.5},
        {"class": "sky", "class_id": 1, "pixel_ratio": 0.5},
    ]
    members = {
        "predictions": predictions,
        "segmentation_mask": _png(values),
        "class_map": {"0": "road", "1": "sky"},
        "present_class_ids": [0, 1],
        "ignored_value": 255,
    }
    _serve(page, "semantic", ["road", "sky"], members)
    expect(page.locator(".bars li")).to_have_count(2)
    drawn = _annotated(page)
    assert (drawn[160, 80].tolist(), drawn[160, 240].tolist()) == ([230, 25, 75], [60, 180, 75])
    shot(page, "playground-semantic")
    page.get_by_role("button", name="sky").click()
    expect(page.locator(".bars li")).to_have_count(1)
    assert np.abs(_annotated(page) - np.asarray(Image.open(PICTURE)).astype(int))[:, :160].max() <= 2
    assert find_barriers(page) == []


def test_depth_is_drawn_from_red_to_blue(page: Page) -> None:
    metres = np.linspace(1, 5, 320)[None].repeat(320, 0)
    members = {
        "depth_map": _png(np.rint(metres * 1000).astype(np.uint16)),
        "scale": 0.001,
        "unit": "m",
        "min": 1.0,
        "max": 5.0,
        "normalized_depth": None,
        "limits_reached": {},
    }
    _serve(page, "depth", [], members)
    expect(page.locator(".output")).to_contain_text("From 1 m (red) to 5 m (blue)")
    drawn = _annotated(page)
    assert drawn[160, 2, 0] > 100 > drawn[160, 2, 2]
    assert drawn[160, 317, 2] > 100 > drawn[160, 317, 0]
    shot(page, "playground-depth")
    assert find_barriers(page) == []
