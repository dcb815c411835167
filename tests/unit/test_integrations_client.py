"""The client of labelling tools: what it retries, for how long, and what its errors say."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from integrations.label_studio.images import ImageError, Images
from integrations.label_studio.labelling_config import controls
from integrations.nereid_client import Model, Nereid, NereidError
from tests.support.http_server import Exchange, run_server
from tests.support.ports import find_free_ports


def scripted(*responses: tuple[int, dict[str, str], bytes]) -> tuple[type[Exchange], list[dict[str, str]]]:
    """A server that gives these responses in order, the last one again and again; and the headers of its requests."""
    seen: list[dict[str, str]] = []

    class Handler(Exchange):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            self.read()
            self.do_GET()

        def do_GET(self) -> None:  # noqa: N802
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send(*responses[min(len(seen), len(responses)) - 1])

    return Handler, seen


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes the clients of a test."""
    with ExitStack() as stack:
        yield stack


BUSY = (429, {"Retry-After": "3"}, b'{"error": "the queue is full", "code": "queue_full"}')
FOUND: tuple[int, dict[str, str], bytes] = (200, {}, b'{"predictions": []}')


def test_busy_server_gets_the_request_again_when_it_says(opened: ExitStack) -> None:
    handler, seen = scripted(BUSY, (503, {"Retry-After": "1"}, b"{}"), FOUND)
    pauses: list[float] = []
    with run_server(handler) as url:
        assert opened.enter_context(closing(Nereid("finder", url, sleep=pauses.append))).predict(b"image") == {
            "predictions": []
        }
    assert pauses == [3, 1]
    assert len(seen) == 3


def test_patience_with_a_busy_server_ends(opened: ExitStack) -> None:
    handler, seen = scripted(BUSY)
    pauses: list[float] = []
    with run_server(handler) as url, pytest.raises(NereidError) as raised:
        opened.enter_context(closing(Nereid("finder", url, patience_s=7, sleep=pauses.append))).predict(b"image")
    assert pauses == [3, 3]
    assert len(seen) == 3
    assert raised.value.status == 429
    assert "429, the queue is full; next: the server has more work than it can do" in str(raised.value)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ((401, {}, b'{"error": "no API key"}'), "401, no API key; next: set NEREID_API_KEY"),
        ((403, {}, b'{"error": "unknown API key"}'), "403, unknown API key; next: set NEREID_API_KEY"),
        ((404, {}, b'{"error": "no model finder"}'), "404, no model finder; next: GET /v2/models lists the models"),
        ((503, {}, b'{"error": "all versions are rejected"}'), "503, all versions are rejected; next: GET /status"),
        ((200, {}, b"<html>"), "200, not a response of Nereid"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "302, not a response of Nereid"),
        ((502, {}, b"[]"), "502, not a response of Nereid"),
    ],
)
def test_error_says_what_came_and_what_to_do(
    response: tuple[int, dict[str, str], bytes], words: str, opened: ExitStack
) -> None:
    handler, seen = scripted(response)
    with run_server(handler) as url, pytest.raises(NereidError) as raised:
        opened.enter_context(closing(Nereid("finder", url))).predict(b"image")
    assert words in str(raised.value)
    assert len(seen) == 1


def test_silent_and_absent_servers_are_errors_in_words(opened: ExitStack) -> None:
    class Silent(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            self.rfile.read(1)

    with run_server(Silent) as url, pytest.raises(NereidError, match=f"no response of {url} in time"):
        opened.enter_context(closing(Nereid("finder", url, timeout_s=0.2))).metadata()
    (port,) = find_free_ports(1)
    with pytest.raises(
        NereidError, match=f"no server at http://127.0.0.1:{port}: .*; next: start it, or set NEREID_URL"
    ):
        opened.enter_context(closing(Nereid("finder", f"http://127.0.0.1:{port}"))).metadata()
    with pytest.raises(NereidError, match="no server at not-a-url"):
        opened.enter_context(closing(Nereid("finder", "not-a-url"))).metadata()


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, opened: ExitStack) -> None:
    handler, seen = scripted(FOUND)
    with run_server(handler) as url:
        monkeypatch.setenv("NEREID_URL", f"{url}/")
        monkeypatch.setenv("NEREID_API_KEY", "secret")
        opened.enter_context(closing(Nereid("finder"))).predict(b"image", confidence=None, classes=["a", "b"])
    assert seen[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "//127.0.0.1/a.png",
        "ftp://a/b",
        "",
        None,
        7,
        "/api/users/",
        "/data/../api/",
        "data:,x",
        "http://",
    ],
)
def test_address_that_no_image_is_fetched_from_is_an_error(address: object, opened: ExitStack) -> None:
    with pytest.raises(ImageError):
        opened.enter_context(closing(Images("http://127.0.0.1:1", "token", frozenset()))).fetch(address, 1)


def test_token_of_label_studio_is_sent_to_no_other_host_and_no_redirect_of_it_is_followed(opened: ExitStack) -> None:
    other, others = scripted((200, {}, b"image"))
    with run_server(other) as elsewhere:
        away = elsewhere.replace("127.0.0.1", "localhost")
        redirecting, own = scripted((302, {"Location": f"{away}/signed"}, b""))
        with run_server(redirecting) as url:
            images = opened.enter_context(closing(Images(url, "token", frozenset({"localhost"}))))
            assert images.fetch("/data/upload/1/a.jpg", 1) == b"image"
            assert images.fetch(f"{away}/b.jpg", 1) == b"image"
            assert own[0]["authorization"] == "Token token"
            with pytest.raises(ImageError, match="got 302, expected 200"):
                opened.enter_context(closing(Images("", "", frozenset({"127.0.0.1"})))).fetch(f"{url}/c.jpg", 1)
    assert len(others) == 2
    assert not any("authorization" in headers for headers in others)


def test_two_images_of_a_config_have_a_control_each() -> None:
    config = (
        '<View><Image name="a" value="$left"/><Image name="b" value="$right"/>'
        '<RectangleLabels name="x" toName="a"><Label value="cat"/></RectangleLabels>'
        '<RectangleLabels name="y" toName="b"><Label value="Chat" predicted_values="dog, CAT"/></RectangleLabels>'
        "</View>"
    )
    found: Any = controls(config, Model("m", "1", "detect", {0: "Cat"}))
    assert [(each.from_name, each.key, each.label("cat")) for each in found] == [
        ("x", "left", "cat"),
        ("y", "right", "Chat"),
    ]
