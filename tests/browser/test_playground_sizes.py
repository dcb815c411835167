"""What is large in the playground: images, results, names; and rows, several of them."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.stack import ROOT, Stack
from tests.support.watched import find_barriers, shot

PICTURE = ROOT / "loadtest/pictures/digits.jpg"
ROWS = "tbody tr"
# With markup, and letters from right to left after a mark that turns what follows.
LONG = "m" * 100 + "<i>x</i>\u202e\u05e9\u05dc\u05d5\u05dd" + "n" * 180


def test_image_of_20_megapixels_is_drawn_and_saved_in_its_size(page: Page) -> None:
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    jpeg = io.BytesIO()
    Image.open(PICTURE).convert("RGB").resize((5200, 3900)).save(jpeg, "JPEG")
    page.set_input_files("#file", {"name": "big.jpg", "mimeType": "image/jpeg", "buffer": jpeg.getvalue()})
    expect(page.locator(ROWS).first).to_be_visible()
    decoding = page.locator(".bar .client").get_attribute("title") or ""
    assert float(re.findall(r"image ([\d.]+) ms", decoding)[0]) > 5, decoding
    with page.expect_download() as saved:
        page.get_by_role("button", name="Annotated PNG").click()
    with Image.open(saved.value.path()) as image:
        assert image.size == (5200, 3900)


def test_time_is_that_of_the_request_and_of_the_page(page: Page) -> None:
    page.goto("/#model=digit-finder")
    page.get_by_role("button", name="Example: handwritten digits").click()
    expect(page.locator(ROWS)).to_have_count(7)
    words = page.locator(".timing .bar").get_attribute("aria-label") or ""
    parts = {name: float(ms) for name, ms in re.findall(r"(\w+) ([\d.]+) ms", words)}
    wall = float(re.findall(r"in (\d+) ms", page.locator("#status").inner_text())[0])
    assert sum(parts.values()) - parts["client"] == pytest.approx(wall, abs=1)
    assert parts["client"] > 0.5, "decoding and drawing are in it"
    assert min(parts["infer"], parts["network"]) > 0


@pytest.fixture
def many(page: Page) -> Page:
    """The playground with 1,000 classes, one of them with a long name, and 1,000 objects of all of them."""
    names = [f"class {index}" for index in range(999)] + [LONG]

    def describe(route: Any) -> None:
        document = route.fetch().json()
        document["parameters"] |= {"names": names, "class_ids": list(range(1000))}
        route.fulfill(json=document)

    def find(route: Any) -> None:
        document = route.fetch().json()
        first = document["predictions"][0]
        document["predictions"] = [
            first
            | {"class": names[999 - index], "class_id": 999 - index, "confidence": round(1 - index / 1001, 6)}
            | _box(10 + 9 * (index % 33), 10 + 9 * (index // 33))
            for index in range(1000)
        ]
        route.fulfill(json=document)

    page.route("**/v2/models/digit-finder", describe)
    page.route("**/predict/**", find)
    page.goto("/#model=digit-finder&max_detections=1000&confidence=0.001")
    page.get_by_role("button", name="Example: handwritten digits").click()
    expect(page.locator(ROWS)).to_have_count(1000, timeout=15_000)
    return page


def _box(x: float, y: float) -> dict[str, Any]:
    box = {"x1": x - 10, "y1": y - 10, "x2": x + 10, "y2": y + 10}
    return {"x": x, "y": y, "width": 20, "height": 20, "box": box}


def test_1000_objects_of_1000_classes_stay_usable(many: Page) -> None:
    many.get_by_role("searchbox", name="Find a class").fill("class 77")
    expect(many.locator(".chips button", has_text="class 5").filter(visible=True)).to_have_count(0)
    many.get_by_role("searchbox", name="Find a class").fill("")
    # Many changes of a slider are drawn once a frame, and not one after the other.
    ms = many.evaluate("""async () => {
      const slider = document.getElementById("set-confidence"), began = performance.now();
      for (let step = 1; step <= 60; step++) {
        slider.value = step / 100;
        slider.dispatchEvent(new Event("input"));
      }
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      return performance.now() - began;
    }""")
    expect(many.locator(ROWS)).to_have_count(401)
    assert ms < 3000, "of 60 drawings it would take ten seconds and more"
    many.locator(ROWS).first.hover()
    expect(many.locator("tr.hovered")).to_have_count(1)
    assert many.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    shot(many, "playground-1000")


@pytest.mark.parametrize("width", [1280, 320])
def test_long_name_of_a_model_fits(open_page: Callable[..., Page], stack: Stack, width: int) -> None:
    page = open_page(f"http://127.0.0.1:{stack.http_port}", viewport={"width": width, "height": 700})
    entry = {"state": "serving", "serving": ["1"], "versions": {"1": {"state": "serving"}}}
    page.route("**/v2/models", lambda route: route.fulfill(json={"models": [LONG]}))
    page.route("**/status", lambda route: route.fulfill(json={"models": {LONG: entry}}))
    page.route("**/v2/models/m*", lambda route: route.fulfill(json=stack.http.get("/v2/models/digit-finder").json()))

    def find(route: Any) -> None:
        response = stack.http.post("/predict/digit-finder", files={"image": PICTURE.read_bytes()}).json()
        response["model"]["name"] = LONG
        route.fulfill(json=response)

    page.route("**/predict/**", find)
    page.goto("/")
    page.get_by_role("button", name="Example: handwritten digits").click()
    expect(page.locator(ROWS)).to_have_count(7)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("main i").count() == 0
    assert find_barriers(page) == []
    shot(page, f"playground-long-{width}")


def test_rows_are_pasted_from_a_sheet_added_and_removed(page: Page) -> None:
    page.goto("/#model=iris")
    field = page.get_by_label("sepal length (cm)")
    expect(field).to_be_visible()
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData("text", "5.1\\t3.5\\t1.4\\t0.2\\r\\n6.3\\t3.3\\t6\\t2.5\\r\\n6.1\\t2.8\\t4.7\\t1.2\\r\\n");
      document.querySelector("[name=column-0]").dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    }""")
    expect(field).to_have_count(3)
    page.get_by_role("button", name="Send the rows").click()
    expect(page.locator(".row-results p b")).to_have_text(["setosa", "virginica", "versicolor"])
    shot(page, "playground-rows")
    assert find_barriers(page) == []
    page.get_by_role("button", name="Remove row 2").click()
    page.get_by_role("button", name="Send the rows").click()
    expect(page.locator(".row-results p b")).to_have_text(["setosa", "versicolor"])
    page.get_by_role("button", name="Add a row").click()
    page.get_by_role("button", name="Send the rows").click()  # the empty one is not sent
    expect(page.locator(":invalid:focus")).to_have_count(1)
    page.get_by_label("Model", exact=True).select_option("digit-finder")
    expect(page.locator("#status")).to_have_text("")
