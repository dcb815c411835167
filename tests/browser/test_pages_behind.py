"""Both pages where something lies between or behind: a proxy with a path, a full queue, a Triton that is stopped."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from threading import Event

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.http_server import Exchange, run_server
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_shipped
from tests.support.transformer import DIGITS
from tests.support.watched import Watch, find_barriers, shot

OpenPage = Callable[..., Page]
PICTURE = ROOT / "loadtest/pictures/digits.jpg"
PATIENCE_MS = PATIENCE_S * 1000
BELOW = "/below/nereid"


class Proxy(Exchange):
    """Takes `/below/nereid` off the path, and has nothing else."""

    port = 0

    def do_GET(self) -> None:  # noqa: N802 - its name in http.server
        """Pass the request on."""
        body = self.read() if "Content-Length" in self.headers else None
        if not self.path.startswith(f"{BELOW}/"):
            self.send(404, {}, b"of the proxy")
            return
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(self.command, self.path.removeprefix(BELOW), body, dict(self.headers))
        response = connection.getresponse()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in {"content-length", "date"}}
        self.send(response.status, kept, response.read())
        connection.close()

    do_POST = do_GET  # noqa: N815


@pytest.fixture
def below(open_page: OpenPage, stack: Stack) -> Iterator[Page]:
    """A page of a proxy in front of the session's stack."""
    handler = type("ProxyOfStack", (Proxy,), {"port": stack.http_port})
    with ExitStack() as opened:
        page = open_page(opened.enter_context(run_server(handler)))
        yield page
        page.context.close()  # its connections keep threads of the proxy


def test_playground_works_behind_a_proxy_with_a_path(below: Page) -> None:
    below.goto(f"{BELOW}/")
    below.get_by_role("button", name="Example: handwritten digits").click()
    expect(below.locator("tbody tr")).to_have_count(7)
    expect(below.locator("#code pre")).to_contain_text(f"{BELOW}/predict/digit-finder")
    below.get_by_role("link", name="Stack").click()
    expect(below.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)
    below.get_by_role("link", name="Playground").click()
    expect(below.locator(".facts .tag")).to_have_text("detect")
    below.goto(f"{BELOW}/stack/")
    expect(below.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)
    assert below.url.endswith(f"{BELOW}/stack")


def test_full_queue_and_stopped_triton_are_words_in_the_playground(
    open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    watch.allow("429|503|504")
    variables = {"TRANSFORMER_MAX_WAITING": "1", "TRANSFORMER_MAX_IN_FLIGHT": "1"}
    with start_shipped(tmp_path, "digit-finder", variables=variables) as stack:
        page = open_page(f"http://127.0.0.1:{stack.http_port}")
        page.goto("/")
        expect(page.locator(".facts .tag")).to_have_text("detect", timeout=PATIENCE_MS)
        alert = page.locator(".pane [role=alert]")
        with ThreadPoolExecutor(8) as pool:
            ended = Event()
            for _ in range(8):
                pool.submit(_flood, stack.http_port, ended)
            try:
                _send_until(page, "429")
                expect(alert).to_contain_text("may succeed a moment later")
                shot(page, "playground-really-429")
            finally:
                ended.set()
        page.set_input_files("#file", PICTURE)
        expect(page.locator("tbody tr")).to_have_count(7)
        expect(alert).to_be_hidden()
        triton = stack.part("tritonserver")
        triton.suspend()
        _send_until(page, "503|504")
        expect(alert.locator(".faint")).not_to_be_empty()
        shot(page, "playground-really-503")
        assert find_barriers(page) == []
        triton.kill()
        _send_until(page, "200")
        expect(page.locator("tbody tr")).to_have_count(7)
        page.close()


def _flood(port: int, ended: Event) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        while not ended.is_set():
            client.post("/predict/digit-finder", content=DIGITS, headers={"Content-Type": "image/jpeg"})


def _send_until(page: Page, statuses: str) -> None:
    """Send the image from the page, until the server responds with one of these."""
    seen: list[int] = []
    for _ in range(30):
        with page.expect_response("**/predict/**", timeout=PATIENCE_MS) as response:
            page.set_input_files("#file", PICTURE)
        seen.append(response.value.status)
        if re.fullmatch(statuses, str(seen[-1])):
            return
        page.wait_for_timeout(500)
    pytest.fail(f"no {statuses}: {seen}")
