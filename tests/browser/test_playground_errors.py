"""What goes wrong in the playground: in words, with the next step."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.stack import ROOT, Stack, start_shipped
from tests.support.transformer import make_key
from tests.support.versions import wrong_digest
from tests.support.watched import Watch, find_barriers, shot

PICTURE = ROOT / "loadtest/pictures/digits.jpg"
ROWS = "tbody tr"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str]]:
    """A stack that requires a key, and the key."""
    folder = tmp_path_factory.mktemp("locked")
    key = make_key("someone", folder / "keys.txt")
    with start_shipped(
        folder, "digit-finder", variables={"TRANSFORMER_API_KEYS_FILE": str(folder / "keys.txt")}
    ) as stack:
        yield stack, key


def test_key_is_typed_and_kept_in_the_session_alone(
    open_page: Callable[..., Page], locked: tuple[Stack, str], watch: Watch
) -> None:
    watch.allow("401")
    watch.allow("403")
    stack, key = locked
    page = open_page(f"http://127.0.0.1:{stack.http_port}")
    page.goto("/")
    expect(page.get_by_text("Type your API key in at the top")).to_be_visible()
    shot(page, "playground-401")
    assert find_barriers(page) == []
    page.get_by_label("API key").fill("another")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Type another API key in at the top")).to_be_visible()
    shot(page, "playground-403")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator(".facts .tag")).to_have_text("detect")
    expect(page.locator("#problem")).to_be_hidden()
    page.set_input_files("#file", PICTURE)
    expect(page.locator(ROWS)).to_have_count(7)
    assert key not in page.content()
    assert "NEREID_API_KEY" in page.locator("#code pre").inner_text()
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_text("Type your API key in at the top").first).to_be_visible()


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"not an image", "image/jpeg", "400", "Choose another image."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "400|415", "JPEG"),
    ],
    ids=["broken", "svg"],
)
def test_file_that_is_rejected(page: Page, watch: Watch, content: bytes, kind: str, status: str, words: str) -> None:
    watch.allow(status)
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", {"name": "some", "mimeType": kind, "buffer": content})
    expect(page.locator(".pane [role=alert]")).to_contain_text(words)
    page.wait_for_timeout(6000)  # the models are listed again meanwhile
    expect(page.locator(".pane [role=alert]")).to_contain_text(words)
    shot(page, f"playground-rejected-{status.replace('|', '-')}")
    page.set_input_files("#file", PICTURE)
    expect(page.locator(ROWS)).to_have_count(7)
    expect(page.locator(".pane [role=alert]")).to_be_hidden()


def test_model_that_is_unknown(page: Page, watch: Watch) -> None:
    watch.allow("404")
    page.goto("/#model=nothing")
    expect(page.locator(".pane [role=alert]")).to_contain_text("Choose another model.")
    shot(page, "playground-404")
    page.get_by_label("Model", exact=True).select_option("digit-finder")
    expect(page.locator(".facts .tag")).to_have_text("detect")


@pytest.mark.parametrize(
    ("status", "code"), [(413, "payload_too_large"), (429, "queue_full"), (503, "predictor_unavailable")]
)
def test_server_that_does_not_take_it(page: Page, watch: Watch, status: int, code: str) -> None:
    watch.allow(str(status))
    # By the wire: a full queue lasts milliseconds.
    body = {"error": "what is wrong", "code": code}
    page.route("**/predict/**", lambda route: route.fulfill(status=status, json=body))
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", PICTURE)
    alert = page.locator(".pane [role=alert]")
    expect(alert).to_contain_text("what is wrong")
    expect(alert.locator(".faint")).not_to_be_empty()
    shot(page, f"playground-{status}")
    assert find_barriers(page) == []


def test_server_that_goes_away_and_comes_back(page: Page, watch: Watch) -> None:
    watch.allow("ERR_FAILED|ERR_CONNECTION")
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.route("**/predict/**", lambda route: route.abort())
    page.route("**/v2/**", lambda route: route.abort())
    page.route("**/status", lambda route: route.abort())
    page.set_input_files("#file", PICTURE)
    expect(page.locator(".pane [role=alert]")).to_contain_text("did not respond")
    expect(page.locator("#problem")).to_contain_text("did not respond", timeout=10_000)
    shot(page, "playground-away")
    page.unroute_all()
    expect(page.locator("#problem")).to_be_hidden(timeout=10_000)
    page.set_input_files("#file", PICTURE)
    expect(page.locator(ROWS)).to_have_count(7)


def test_request_is_cancelled_by_escape(page: Page) -> None:
    waiting: list[Any] = []
    page.route("**/predict/**", lambda route: waiting.append(route))  # noqa: PLW0108 - Playwright looks at it
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", PICTURE)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    shot(page, "playground-loading")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    expect(page.locator(".pane")).to_have_attribute("aria-busy", "false")


def test_limit_that_makes_filtering_inexact_is_said(page: Page) -> None:
    def cut(route: Any) -> None:
        if "max_detections=1000" not in route.request.url:
            route.continue_()
            return
        document = route.fetch().json()
        document["predictions"] = document["predictions"][:4]
        document["limits_reached"] = {"model_candidates": 4}
        route.fulfill(json=document)

    page.route("**/predict/**", cut)
    page.goto("/#model=digit-finder")
    expect(page.locator(".facts .tag")).to_be_visible()
    page.set_input_files("#file", PICTURE)
    expect(page.get_by_text("A limit left out objects below")).to_be_visible()
    shot(page, "playground-limited")
    page.get_by_role("spinbutton", name="Confidence above").fill("0.95")
    expect(page.get_by_text("A limit left out objects below")).to_be_hidden()
    page.get_by_role("spinbutton", name="Confidence above").fill("0.25")
    page.get_by_role("button", name="Request exactly this").click()
    expect(page.locator(ROWS)).to_have_count(7)
    expect(page.get_by_text("A limit left out objects below")).to_be_hidden()


def test_new_versions_are_announced_or_rejected_with_the_reason(open_page: Callable[..., Page], tmp_path: Path) -> None:
    model = tmp_path / "repository/digit-finder"
    with start_shipped(tmp_path, "digit-finder") as stack:
        page = open_page(f"http://127.0.0.1:{stack.http_port}")
        page.goto("/")
        expect(page.get_by_label("Version")).to_contain_text("newest (1)")
        page.set_input_files("#file", PICTURE)
        expect(page.locator("#status")).to_contain_text("digit-finder 1: 7 results")
        _publish(model / "2")
        expect(page.get_by_label("Version")).to_contain_text("newest (2)", timeout=60_000)
        expect(page.locator("#status")).to_contain_text("version 2 serves now")
        expect(page.locator("#status")).to_contain_text("digit-finder 2: 7 results")
        _publish(model / "3", spoil=wrong_digest)
        page.get_by_text("1 rejected").click(timeout=60_000)
        expect(page.locator(".facts details")).to_contain_text("version 3: ")
        shot(page, "playground-version-rejected")
        page.close()  # before its server ends


def _publish(folder: Path, spoil: Callable[[Path], None] | None = None) -> None:
    made = folder.parents[2] / folder.name
    shutil.copytree(folder.parent / "1", made)
    manifest = made / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"version": folder.name}))
    if spoil:
        spoil(made)
    made.rename(folder)
