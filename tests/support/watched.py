"""Pages in a browser: what must not happen in one, its screenshots, and what axe finds in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright

from tests.support.stack import ROOT

SHOTS = ROOT / "output" / "browser"
_ARGUMENTS = (
    "--use-fake-device-for-media-stream",  # a camera that shows a moving pattern; a test grants it
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # nothing leaves the machine
)
# A page that ends a request of its own, or is left while one runs.
_ABORTED = "net::ERR_ABORTED"
# The synchroniser has two seconds to respond, which is not always enough while a version loads on busy cores; a page
# shows what it had, and requests it again. What /status says is for the tests.
_LATE = r"503 .*/status\b"
_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


class Watch:
    """Everything that went wrong in the pages of a test, in words.

    An error on the console (a violation of the content security policy is one), an exception that nothing caught, a
    request without a response, a response of 400 or more, and a request to another host.
    """

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._allowed: list[str] = []
        self._contexts: list[BrowserContext] = []
        self._has_ended = False

    def allow(self, pattern: str) -> None:
        """Expect problems with this regular expression in them: `watch.allow("401")`."""
        self._allowed.append(pattern)

    @property
    def problems(self) -> list[str]:
        """Those that were not allowed."""
        allowed = [_LATE, *self._allowed]
        return [each for each in self._problems if not any(re.search(pattern, each) for pattern in allowed)]

    def end(self) -> None:
        """Take in what has happened until now, and no more: requests fail when their page is closed."""
        for context in self._contexts:
            for page in context.pages:
                with suppress(Error):  # it has crashed, or is just being closed
                    page.wait_for_timeout(0)  # events are handled during a call
        self._has_ended = True

    def follow(self, context: BrowserContext, base_url: str) -> None:
        """Record what goes wrong in any page of a context.

        Args:
            context: of the browser.
            base_url: of the server, the only one that may get requests.
        """
        self._contexts.append(context)
        server = urlsplit(base_url).netloc

        def note_host(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme not in {"blob", "data"} and parts.netloc != server:
                self._note(f"request to another host: {url}")

        def note_console(kind: str, text: str, url: str) -> None:
            if kind in {"error", "warning"}:
                self._note(f"console: {text} ({url})")

        context.on("request", lambda request: note_host(request.url))
        context.on("console", lambda line: note_console(line.type, line.text, line.location.get("url", "")))
        context.on("weberror", lambda error: self._note(f"exception: {error.error}"))
        context.on("requestfailed", lambda request: self._note_failed(request.url, request.failure or ""))
        context.on("response", lambda response: self._note_status(response.url, response.status))

    def _note_failed(self, url: str, why: str) -> None:
        if why != _ABORTED:
            self._note(f"request failed: {url}: {why}")

    def _note_status(self, url: str, status: int) -> None:
        if status >= 400:
            self._note(f"response: {status} of {url}")

    def _note(self, problem: str) -> None:
        if not self._has_ended:
            self._problems.append(problem)


@contextmanager
def start_browser(playwright: Playwright, program: str) -> Iterator[Browser]:
    """The browser, without a window, until the block ends."""
    browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
    yield browser
    browser.close()


def shot(page: Page, name: str) -> Path:
    """Keep a screenshot of the whole page as `output/browser/<name>.png`."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


def find_barriers(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA and its best practices: a line for each element, none where it is right."""
    found = Axe().run(page, options={"runOnly": list(_RULES)}).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {node['html']}" for rule in found for node in rule["nodes"]]
