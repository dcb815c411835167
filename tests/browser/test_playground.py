"""The playground in a real browser, beside the real stack."""

import io
import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.stack import ROOT, Stack
from tests.support.watched import find_barriers, shot

PICTURES = ROOT / "loadtest/pictures"
FINDERS = ("digit-finder", "digit-outlines", "digit-strokes", "tilted-digits")
ROWS = "tbody tr"


@pytest.mark.parametrize("model", FINDERS)
def test_playground_filters_as_the_server_responds(
    page: Page, stack: Stack, use: Callable[..., None], model: str
) -> None:
    use(f"model={model}")
    image = (PICTURES / "digits.jpg").read_bytes()
    compared = 0
    for confidence in (0.05, 0.1, 0.25, 0.5, 0.9):
        for classes in (None, ["7"], ["0", "5", "9"]):
            for most in (1000, 3):
                shown = page.evaluate(
                    _NARROWED,
                    [model, "digits.jpg", {"confidence": confidence, "classes": classes, "max_detections": most}],
                )
                query = {
                    "confidence": confidence,
                    "max_detections": most,
                    "iou": 0.7,
                    **({"classes": classes} if classes else {}),
                }
                response = stack.http.post(f"/predict/{model}", params=query, files={"image": image}).raise_for_status()
                assert [_without_id(each) for each in shown] == [
                    _without_id(each) for each in response.json()["predictions"]
                ]
                compared += len(shown)
    assert compared > 30


def test_playground_filters_classes_as_the_server_responds(page: Page, stack: Stack, use: Callable[..., None]) -> None:
    use("model=digits", "seven.png")
    image = (ROOT / "transformer/playground/examples/seven.png").read_bytes()
    for probability in (0, 0.0001, 0.5):
        for classes in (None, ["8", "1"]):
            for top_k in (1, 5, 10):
                changed = {"probability": probability, "classes": classes, "top_k": top_k}
                query = {"confidence": probability, "top_k": top_k, **({"classes": classes} if classes else {})}
                response = stack.http.post("/predict/digits", params=query, files={"image": image}).raise_for_status()
                assert page.evaluate(_NARROWED, ["digits", "seven.png", changed]) == response.json()["predictions"]


# The page's own modules: one request for the image that is shown, narrowed by settings.
_NARROWED = """async ([model, image, changed]) => {
  const [{ predict, parametersOf }, { narrow, covers }, { DEFAULTS }] = await Promise.all(
    ["predict", "filter", "settings"].map((name) => import(`./playground/${name}.js`)));
  window.kept ??= {};
  if (!window.kept[model]) {
    const { parameters } = await (await fetch(`v2/models/${model}`)).json();
    const blob = await (await fetch(`playground/examples/${image}`)).blob();
    const requested = parametersOf(parameters.task, DEFAULTS, false);
    const { signal } = new AbortController();
    window.kept[model] = await predict({ model, version: "", task: parameters.task }, { blob }, requested, signal);
  }
  const settings = { ...DEFAULTS, ...changed };
  if (!covers(window.kept[model], settings)) throw new Error("another request would be needed");
  return narrow(window.kept[model], settings).predictions;
}"""


def _without_id(prediction: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in prediction.items() if name != "detection_id"}


def test_confidence_and_classes_need_no_request(page: Page, use: Callable[..., None]) -> None:
    use("model=digit-finder")
    expect(page.locator(ROWS)).to_have_count(7)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/predict/" in request.url else None)
    page.get_by_role("spinbutton", name="Confidence above").fill("0.9")
    expect(page.locator(ROWS)).to_have_count(3)
    page.get_by_role("button", name="7", exact=True).click()
    expect(page.locator(ROWS)).to_have_count(1)
    page.wait_for_timeout(700)  # longer than a change waits before it is sent
    assert sent == []
    page.get_by_role("spinbutton", name="Overlap (IoU) up to").fill("0.3")
    expect(page.locator("#status")).to_contain_text("1 result")
    page.wait_for_timeout(700)
    assert len(sent) == 1
    assert "iou=0.3" in sent[0]


def test_link_and_reload_keep_the_settings(page: Page, use: Callable[..., None]) -> None:
    use("model=digit-outlines")
    page.get_by_role("spinbutton", name="Confidence above").fill("0.9")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("digit-outlines")
    expect(page.get_by_role("spinbutton", name="Confidence above")).to_have_value("0.9")


@pytest.mark.parametrize(
    ("model", "image"),
    [(model, "digits.jpg") for model in FINDERS] + [("digits", "seven.png"), ("digit-classes", "middle-two.jpg")],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_results_are_without_barriers(
    page: Page, use: Callable[..., None], model: str, image: str, scheme: Any
) -> None:
    page.emulate_media(color_scheme=scheme)
    use(f"model={model}", image)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    shot(page, f"playground-{model}-{scheme}")
    assert find_barriers(page) == []


def test_rows_of_a_table_come_from_a_form(page: Page) -> None:
    page.goto("/#model=iris")
    for name, value in (
        ("sepal length (cm)", "6.3"),
        ("sepal width (cm)", "3.3"),
        ("petal length (cm)", "6"),
        ("petal width (cm)", "2.5"),
    ):
        page.get_by_label(name).fill(value)
    page.get_by_role("button", name="Send the rows").click()
    expect(page.locator(".output")).to_contain_text("virginica 98.9 %")
    shot(page, "playground-table")
    assert find_barriers(page) == []


def test_two_models_mark_the_same_object(page: Page, use: Callable[..., None]) -> None:
    use("model=digit-finder&model2=digit-outlines")
    first, second = page.locator(".pane").all()
    expect(second.locator(ROWS)).to_have_count(8)
    first.locator(ROWS).filter(has_text="51.5").hover()
    expect(second.locator("tr.hovered td").nth(1)).to_have_text("0")
    expect(page.locator("#status")).to_contain_text("the second")
    shot(page, "playground-two")
    assert find_barriers(page) == []


def test_keyboard_goes_through_the_rows(page: Page, use: Callable[..., None]) -> None:
    use("model=digit-finder")
    page.locator(ROWS).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(ROWS).nth(2)).to_be_focused()
    expect(page.locator(ROWS).nth(2)).to_have_class(re.compile("hovered"))
    shot(page, "playground-keyboard")


def test_rotated_image_is_drawn_in_the_frame_of_its_boxes(page: Page, stack: Stack) -> None:
    wide = Image.new("RGB", (480, 320), "#777")
    wide.paste(Image.open(PICTURES / "digits.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    jpeg = io.BytesIO()
    wide.rotate(90, expand=True).save(jpeg, "JPEG", exif=exif.tobytes(), quality=95)
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", {"name": "turned.jpg", "mimeType": "image/jpeg", "buffer": jpeg.getvalue()})
    expect(page.locator(".timing")).to_be_visible()
    response = stack.http.post("/predict/digit-finder", files={"image": jpeg.getvalue()}).json()
    assert response["image"] == {"width": 480, "height": 320}
    natural = page.locator(".stage img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
    assert natural == [480, 320]
    box = page.locator(".stage").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(1.5, abs=0.02)


def test_format_that_no_browser_shows_is_drawn_by_the_server(page: Page) -> None:
    tiff = io.BytesIO()
    Image.open(PICTURES / "digits.jpg").save(tiff, "TIFF")
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", {"name": "scan.tif", "mimeType": "image/tiff", "buffer": tiff.getvalue()})
    expect(page.get_by_text("as the server decoded it")).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(7)
    assert page.locator(".stage img").evaluate("(image) => image.naturalWidth") == 320


def test_dropped_and_pasted_images_are_sent(page: Page) -> None:
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.evaluate("window.loaded = fetch('playground/examples/digits.jpg').then((each) => each.blob())")
    make = """async (kind) => {
      const data = new DataTransfer();
      data.items.add(new File([await window.loaded], "some.jpg", { type: "image/jpeg" }));
      const paste = () => new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
      const drag = () => new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(kind === "paste" ? paste() : drag());
    }"""
    page.evaluate(make, "dragenter")
    expect(page.locator("#drop-here")).to_be_visible()
    shot(page, "playground-drag")
    for kind in ("drop", "paste"):
        with page.expect_response(re.compile("/predict/digit-finder")):
            page.evaluate(make, kind)
        expect(page.locator(ROWS)).to_have_count(7)
        expect(page.locator("#drop-here")).to_be_hidden()


def test_camera_has_one_request_in_flight(page: Page) -> None:
    page.context.grant_permissions(["camera"])
    in_flight = most = sent = 0

    def count(change: int) -> None:
        nonlocal in_flight, most, sent
        in_flight += change
        most = max(most, in_flight)
        sent += change > 0

    page.on("request", lambda request: count(1) if "/predict/" in request.url else None)
    page.on("requestfinished", lambda request: count(-1) if "/predict/" in request.url else None)
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.get_by_role("button", name="Camera").click()
    # It may be looked at once a dozen frames.
    expect(page.locator("#status")).to_contain_text(re.compile(r"Camera: .* images/s, .* (?:[5-9]|\d{2,}) sent"))
    shot(page, "playground-camera")
    with page.expect_response(re.compile("/predict/digit-strokes")):
        page.get_by_label("Model", exact=True).select_option("digit-strokes")
    expect(page.locator(".facts .tag")).to_have_text("pose")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("The camera is off")
    assert sent >= 5
    assert most == 1


def test_camera_that_may_not_be_used_is_explained(page: Page) -> None:
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
    )
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#problem")).to_contain_text("may not use the camera")
    expect(page.get_by_role("button", name="Camera")).to_have_attribute("aria-pressed", "false")


def test_small_screen_does_not_scroll_sideways(open_page: Callable[..., Page], stack: Stack) -> None:
    page = open_page(
        f"http://127.0.0.1:{stack.http_port}", viewport={"width": 320, "height": 640}, device_scale_factor=2
    )
    page.goto("/#model=digit-outlines")
    page.get_by_role("button", name="Example: handwritten digits").click()
    expect(page.locator(ROWS)).to_have_count(8)
    shot(page, "playground-small")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    canvas = page.locator(".stage canvas").evaluate("(canvas) => [canvas.width, canvas.clientWidth]")
    assert canvas[0] == pytest.approx(2 * canvas[1], abs=2)
    assert find_barriers(page) == []


def test_masks_of_rle_are_drawn(page: Page, use: Callable[..., None]) -> None:
    use("model=digit-outlines&mask=rle&labels=false&opacity=1")
    expect(page.locator(ROWS)).to_have_count(8)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Annotated PNG").click()
    drawn = np.asarray(Image.open(saved.value.path()).convert("RGB"))
    assert drawn.shape == (320, 320, 3)
    # The middle of the large 7, whose colour is the eighth.
    assert np.abs(drawn[195, 140].astype(int) - (128, 128, 0)).max() < 12


def test_names_cannot_carry_script(page: Page) -> None:
    name = '<img src=x onerror="window.broken=1">'

    def rename(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace('"class":"7"', '"class":' + _quoted(name)))

    page.route("**/predict/**", rename)
    page.route("**/v2/models/digit-finder", lambda route: _named(route, name))
    page.goto("/#model=digit-finder")
    expect(page.get_by_role("button", name=name)).to_be_visible()
    page.set_input_files("#file", PICTURES / "digits.jpg")
    expect(page.locator("tbody")).to_contain_text(name)
    assert page.evaluate("window.broken") is None


def _quoted(text: str) -> str:
    return httpx.Request("POST", "http://x", json=text).content.decode()


def _named(route: Any, name: str) -> None:
    document = route.fetch().json()
    document["parameters"]["names"][7] = name
    route.fulfill(json=document)
