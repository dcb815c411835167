"""The pages in a real browser.

A test takes `page`, a fresh one of the session's stack (`page.goto("/stack")`), or `open_page(<URL of a server>)`,
which opens one of any other. It fails where something goes wrong in a page that it did not announce by `watch.allow`
(tests/support/watched.py). Of a test that fails each page is kept as `output/browser/failed-<test>.png`. A camera
that shows a moving pattern is there: `page.context.grant_permissions(["camera"])`.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import pytest

from tests.support.chromium import MISSING, find_chromium
from tests.support.stack import ROOT, Stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.support.watched import Watch

_INSTALLED = find_spec("playwright") is not None
# No file of this folder can be imported without it.
collect_ignore_glob = [] if _INSTALLED else ["test_*.py"]
_FAILED = pytest.StashKey[bool]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why nothing was collected."""
    if not _INSTALLED:
        terminalreporter.line("tests/browser: left out: playwright is missing; next: make .venv/.browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed, for the end of its fixtures."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None]:
    """Fail a test in whose pages anything went wrong that was not allowed, before they are closed."""
    yield
    if "watch" in item.funcargs:
        watched = cast("Watch", item.funcargs["watch"])
        watched.end()
        assert not watched.problems


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium, one for each worker."""
    program = find_chromium()
    if program is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing

    from tests.support.watched import start_browser  # noqa: PLC0415

    with sync_playwright() as playwright, start_browser(playwright, program) as started:
        yield started


@pytest.fixture
def watch() -> "Watch":
    """What went wrong in the pages of this test; it fails where anything did that was not allowed."""
    from tests.support.watched import Watch  # noqa: PLC0415

    return Watch()


@pytest.fixture
def open_page(browser: "Browser", watch: "Watch", request: pytest.FixtureRequest) -> "Iterator[Callable[..., Page]]":
    """Open a page of a server by its URL, with options of Playwright's `new_context`; each in a fresh context."""
    with ExitStack() as opened:

        def open_one(base_url: str, **options: object) -> "Page":
            context = opened.enter_context(browser.new_context(base_url=base_url, **options))
            watch.follow(context, base_url)
            page: Page = context.new_page()
            opened.callback(_keep, page, request.node)
            return page

        yield open_one


@pytest.fixture
def page(open_page: "Callable[..., Page]", stack: Stack) -> "Page":
    """A page of the session's stack, with the shipped models."""
    return open_page(f"http://127.0.0.1:{stack.http_port}")


@pytest.fixture
def use(page: "Page") -> "Callable[..., None]":
    """Open the playground with settings, and send one of the sample images."""
    from playwright.sync_api import expect  # noqa: PLC0415

    def open_and_send(settings: str, image: str = "digits.jpg") -> None:
        page.goto(f"/#{settings}")
        expect(page.locator(".facts .tag").first).to_be_visible()
        page.set_input_files("#file", ROOT / "loadtest" / "pictures" / image)
        expect(page.locator(".timing").first).to_be_visible()

    return open_and_send


def _keep(page: "Page", test: pytest.Item) -> None:
    from tests.support.watched import shot  # noqa: PLC0415

    if test.stash.get(_FAILED, False) and not page.is_closed():
        shot(page, f"failed-{test.name}")
