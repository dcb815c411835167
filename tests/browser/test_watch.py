"""What fails a test of this folder: each thing that can go wrong in a page, done on purpose, and the camera."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.support.watched import Watch, find_barriers, shot

INLINE = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
ELSEWHERE = "window.open('http://example.invalid/')"  # of what a page loads itself the policy lets nothing out


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.error('no more')", "console: no more"),
        ("console.warn('soon')", "console: soon"),
        ("setTimeout(() => { throw new Error('not caught') })", "exception: not caught"),
        ("Promise.reject(new Error('of a promise'))", "exception: of a promise"),
        ("fetch('/unknown')", "response: 404 of "),
        (INLINE, "Content Security Policy"),
        (ELSEWHERE, "request to another host: http://example.invalid/"),
        (ELSEWHERE, "request failed: http://example.invalid/"),
    ],
)
def test_watch_sees_what_goes_wrong_in_a_page(page: Page, watch: Watch, script: str, problem: str) -> None:
    page.goto("/stack")
    before = watch.problems
    page.evaluate(f"() => {{ {script} }}")
    for _ in range(100):
        page.wait_for_timeout(50)
        if any(problem in each for each in watch.problems):
            break
    found = watch.problems
    watch.allow(".*")
    assert not before
    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("between", "problem"),
    [(lambda watch: watch.allow("first"), "second"), (lambda watch: watch.end(), "first")],
)
def test_watch_leaves_out_what_is_allowed_and_what_comes_after_its_end(
    page: Page, watch: Watch, between: Callable[[Watch], None], problem: str
) -> None:
    page.goto("/stack")
    page.evaluate("() => { console.error('first') }")
    between(watch)
    page.evaluate("() => { console.error('second') }")
    page.wait_for_timeout(100)
    (found,) = watch.problems
    watch.allow(problem)
    assert problem in found


def test_camera_gives_images_where_it_is_granted(page: Page) -> None:
    page.context.grant_permissions(["camera"])
    page.goto("/stack")
    width = page.evaluate(
        "async () => (await navigator.mediaDevices.getUserMedia({video: true})).getVideoTracks()[0].getSettings().width"
    )
    assert width > 0


def test_barriers_are_found_and_a_screenshot_is_kept(page: Page) -> None:
    page.goto("/stack")
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert any(each.startswith("button-name: ") for each in find_barriers(page))
    assert shot(page, "watch").read_bytes().startswith(b"\x89PNG")
