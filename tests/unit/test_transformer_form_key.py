"""The key of a form, whatever pieces it arrives in, and what is kept of it until the key is known."""

import asyncio
import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from transformer.errors import BodyTimeout, ClientDisconnected
from transformer.rest.form_key import HEAD_BYTES, read_form_key

KEY = "nereid_a-key"
IMAGE = bytes(range(256)) * 8
TYPE = "multipart/form-data; boundary=X"


def form(*fields: tuple[str, bytes]) -> bytes:
    """A form; the field `image` is a file."""
    parts = [
        b'--X\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b'; filename="a.jpg"' if name == "image" else b"", data)
        for name, data in fields
    ]
    return b"".join(parts) + b"--X--\r\n"


WHOLE = form(("min_confidence", b"0.4"), ("api_key", KEY.encode()), ("image", IMAGE))


class Client:
    """Sends a body in pieces, and then nothing, or its end."""

    def __init__(self, pieces: Iterable[bytes], *, then: str = "end") -> None:
        self._pieces, self._then = list(pieces), then
        self.received = 0

    async def receive(self) -> Message:
        """ASGI's."""
        if self._pieces:
            piece = self._pieces.pop(0)
            self.received += len(piece)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._then != "end"}
        if self._then == "silence":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    def key_and_body(self, content_type: str = TYPE, **headers: str) -> tuple[str, bytes, list[Message]]:
        """The key, the body as the route reads it, and the messages that it reads."""
        return asyncio.run(self._key_and_body(content_type, headers))

    async def _key_and_body(self, content_type: str, headers: dict[str, str]) -> tuple[str, bytes, list[Message]]:
        fields = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in fields.items()]}
        key, receive = await read_form_key(scope, self.receive, timeout_s=0.2)
        messages = []
        while (message := await receive())["type"] == "http.request":
            messages.append(message)
            if not message["more_body"]:
                break
        return key, b"".join(each["body"] for each in messages), messages


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces."""
    edges = [0, *sorted({place for place in places if 0 < place < len(body)}), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("place", range(1, 200))
def test_form_cut_at_any_byte_has_its_key_and_is_whole(place: int) -> None:
    assert Client(cut(WHOLE, [place])).key_and_body()[:2] == (KEY, WHOLE)


@given(st.lists(st.integers(1, len(WHOLE)), max_size=40))
def test_form_cut_anywhere_has_its_key_and_is_whole(places: list[int]) -> None:
    assert Client(cut(WHOLE, places)).key_and_body()[:2] == (KEY, WHOLE)


@pytest.mark.parametrize(
    ("content_type", "headers", "body", "key"),
    [
        ('Multipart/Form-Data; charset=utf-8; boundary="X"', {}, WHOLE, KEY),
        ('multipart/form-data; boundary="X Y"', {}, WHOLE.replace(b"--X", b"--X Y"), KEY),
        (TYPE, {"content_encoding": "identity"}, WHOLE, KEY),
        (TYPE, {"content_encoding": "gzip"}, WHOLE, ""),
        ("multipart/form-data", {}, WHOLE, ""),
        ('multipart/form-data; boundary=""', {}, WHOLE, ""),
        ("multipart/form-data; boundary=é", {}, WHOLE, ""),
        ("application/x-www-form-urlencoded", {}, b"api_key=a", ""),
        (TYPE, {}, form(("image", IMAGE), ("api_key", KEY.encode())), ""),
        (TYPE, {}, form(("api_key", b" " + KEY.encode() + b"\n"), ("image", IMAGE)), KEY),
        (TYPE, {}, form(("a", b"x" * 7000), ("api_key", KEY.encode())), KEY),
        (TYPE, {}, form(("a", b"x" * HEAD_BYTES), ("api_key", KEY.encode())), ""),
        (TYPE, {}, WHOLE.replace(b"\r\n\r\nnereid", b"\r\nX-Long: %b\r\n\r\nnereid" % (b"x" * 3000)), KEY),
        (TYPE, {}, form(*[("a", b"x")] * 20, ("api_key", KEY.encode())), KEY),
        (TYPE, {}, b"", ""),
        (TYPE, {}, b"no form\r\n" * 2000, ""),
    ],
)
def test_key_is_where_clients_send_it_and_nowhere_else(
    content_type: str, headers: dict[str, str], body: bytes, key: str
) -> None:
    assert Client([body]).key_and_body(content_type, **headers)[:2] == (key, body)


def test_of_a_form_without_a_key_no_more_than_the_head_is_read() -> None:
    client = Client([b"x" * 100] * 1000)
    scope = {"type": "http", "headers": [(b"content-type", TYPE.encode())]}
    assert asyncio.run(read_form_key(scope, client.receive, timeout_s=1))[0] == ""
    assert client.received < HEAD_BYTES + 100


def test_head_that_arrives_byte_by_byte_takes_no_memory_for_each() -> None:
    """A client without a key decides into how many pieces it cuts the head."""
    body = form(("a", b"x" * (HEAD_BYTES - 1000)), ("api_key", KEY.encode()), ("image", IMAGE))
    key, whole, messages = Client(cut(body, range(HEAD_BYTES - 500))).key_and_body()
    assert (key, whole) == (KEY, body)
    # The head as one message; the rest as it came.
    assert len(messages[0]["body"]) > HEAD_BYTES - 1000
    assert sys.getsizeof(messages[0]["body"]) < 2 * HEAD_BYTES


def test_client_that_leaves_or_waits_gets_no_error_of_its_key() -> None:
    with pytest.raises(ClientDisconnected):
        Client([WHOLE[:50]], then="leave").key_and_body()
    with pytest.raises(BodyTimeout, match="'api_key'"):
        Client([WHOLE[:50]], then="silence").key_and_body()
