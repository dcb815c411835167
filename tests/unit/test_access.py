"""The header with the API key: the same for HTTP and gRPC, and without characters that could end it."""

import pytest

from environment import api_key


def test_key_of_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(api_key.VARIABLE, "nereid_x")
    assert api_key.headers() == {"authorization": "Bearer nereid_x"}
    assert api_key.metadata() == (("authorization", "Bearer nereid_x"),)


@pytest.mark.parametrize("key", ["", None])
def test_without_a_key_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.delenv(api_key.VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(api_key.VARIABLE, key)
    assert (api_key.headers(), api_key.metadata()) == ({}, ())


@pytest.mark.parametrize("key", ["two words", "schlüssel", "x\r\nHost: y", "\t", "x\x7f"])
def test_invalid_key_is_rejected_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(api_key.VARIABLE, key)
    with pytest.raises(api_key.AccessError, match=r"^NEREID_API_KEY: got something else \(not shown\)") as raised:
        api_key.headers()
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (401, '{"error": "no API key"}', "http://x: 401 no API key; next: NEREID_API_KEY=<one of the server's keys>"),
        (403, "<html>\n", "http://x: 403 <html>; next: NEREID_API_KEY=<one of the server's keys>"),
        ("UNAUTHENTICATED", "no API key", "http://x: UNAUTHENTICATED no API key; next: NEREID_API_KEY="),
        ("PERMISSION_DENIED", "", "http://x: PERMISSION_DENIED "),
    ],
)
def test_rejection_names_the_next_step(status: int | str, text: str, says: str) -> None:
    with pytest.raises(api_key.AccessError) as raised:
        api_key.check("http://x", status, text)
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize("status", [200, 404, 429, 503, "OK", "UNAVAILABLE"])
def test_any_other_response_passes(status: int | str) -> None:
    api_key.check("http://x", status, "")
