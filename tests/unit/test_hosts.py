"""Which hosts a server accepts."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from environment import listening
from environment.listening import Hosts, read_name, split_target
from predictor.settings import Settings as PredictorSettings
from transformer.settings import TransformerSettings

LOCAL = [
    "localhost", "LOCALHOST", "localhost:8080", "localhost.", "localhost:", "models.localhost", "a.b.localhost:1",
    "127.0.0.1", "127.0.0.1:8080", "127.255.255.254", "[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
]  # fmt: skip
ANYWHERE = "0.0.0.0"  # noqa: S104
FOREIGN = [
    "evil.example", "evil.example:8080", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example",
    "127.0.0.1.nip.io", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1x", ANYWHERE, "[::]", "10.0.0.1",
    "[fe80::1]", "[::2]", "[::127.0.0.1]", "[v1.localhost]", "localhost,evil.example", "evil.example,localhost",
    "%6cocalhost", "", ":8080", "_", "127.0.0.256", "a" * 5000,
]  # fmt: skip
NONE = [
    "a b", "localhost evil", "localhost/", "/", "localhost@evil.example", "http://localhost", "a:b", "localhost:80:80",
    "localhost:-1", "localhost:+1", "[::1", "::1", "[::1]x", "[127.0.0.1]", "[::1%lo]", "[:::]", "[localhost]", "[]",
    "l\u00f6calhost", "\u212aocalhost", "a\tb", "a\0", "a\n", "localhost\n", "%zz", "a?b", "a#b", "a\\b", '"a"', "a, b",
]  # fmt: skip


def listener(address: str, family: int = socket.AF_INET) -> socket.socket:
    return socket.create_server((address, 0), family=family)


@pytest.mark.parametrize(
    ("address", "family"),
    [("127.0.0.1", socket.AF_INET), ("127.1", socket.AF_INET), ("localhost", socket.AF_INET), ("::1", socket.AF_INET6)],
)
def test_server_on_loopback_accepts_the_names_of_loopback_alone(address: str, family: int) -> None:
    with listener(address, family) as sock:
        hosts = Hosts(sock.getsockname()[0], setting="SOME_HOSTS")
    assert hosts.are_known
    assert [host for host in LOCAL if hosts.find_rejection([host])] == []
    assert [host for host in FOREIGN + NONE if not hosts.find_rejection([host])] == []
    assert hosts.find_rejection([]) == ""  # HTTP/1.0
    assert hosts.find_rejection(["localhost", "evil.example"])
    assert hosts.find_rejection(["evil.example"]) == (
        "Host: got 'evil.example', expected one of 127.0.0.1, [::1], localhost; next: SOME_HOSTS=<names of this server>"
    )
    assert len(hosts.find_rejection(["x" * 60_000])) < 300


def test_names_of_the_setting_are_accepted_too() -> None:
    with listener("127.0.0.1") as sock:
        hosts = Hosts(sock.getsockname()[0], {"nereid.test", "10.0.0.1", "[fd00::1]"}, setting="SOME_HOSTS")
    good = ["nereid.test", "NEREID.test.:443", "10.0.0.1:80", "[fd00::1]", *LOCAL]
    assert [host for host in good if hosts.find_rejection([host])] == []
    for host in ("a.nereid.test", "nereid.test.evil", "10.0.0.2", "[fd00::2]"):
        assert hosts.find_rejection([host]), host


def test_server_on_another_address_accepts_every_host_unless_names_are_set() -> None:
    with listener(ANYWHERE) as sock:
        assert not Hosts(sock.getsockname()[0], setting="SOME_HOSTS").are_known
        hosts = Hosts(sock.getsockname()[0], {"nereid.test"}, setting="SOME_HOSTS")
    assert hosts.are_known
    for host in ("nereid.test", "localhost:8080", "10.1.2.3:8080", "[fd00::1]:8080"):
        assert not hosts.find_rejection([host]), host
    for host in ("evil.example", "127.0.0.1.nip.io", "10.1", ""):
        assert hosts.find_rejection([host]), host


@pytest.mark.parametrize("host", NONE)
def test_invalid_host_has_no_name(host: str) -> None:
    assert read_name(host) is None


@pytest.mark.parametrize("host", LOCAL + FOREIGN)
def test_host_has_a_name(host: str) -> None:
    assert read_name(host) is not None


@given(st.text())
def test_any_text_is_a_valid_name_or_none(text: str) -> None:
    name = read_name(text)
    assert name is None or (name.isascii() and not set(name) & set("/@?# \\"))


@pytest.mark.parametrize(
    ("target", "authority", "rest"),
    [
        (b"/a?b", None, b"/a?b"),
        (b"//evil/a", None, b"//evil/a"),
        (b"*", None, b"*"),
        (b"evil:80", None, b"evil:80"),
        (b"http://evil/a?b", b"evil", b"/a?b"),
        (b"HTTP://evil:80/a", b"evil:80", b"/a"),
        (b"http://evil", b"evil", b"/"),
        (b"http://evil?b", b"evil", b"/?b"),
        (b"http://localhost@evil/", b"localhost@evil", b"/"),
        (b"http:///a", b"", b"/a"),
        (b"http://evil/http://localhost/", b"evil", b"/http://localhost/"),
    ],
)
def test_target_is_split(target: bytes, authority: bytes | None, rest: bytes) -> None:
    assert split_target(target) == (authority, rest)


def test_setting_is_read_in_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRANSFORMER_HOSTS", "PREDICTOR_SYNC_HOSTS"):
        monkeypatch.setenv(name, "Nereid.test, b.test  [FD00::1],10.0.0.1.")
    names = {"nereid.test", "b.test", "[fd00::1]", "10.0.0.1"}
    assert TransformerSettings().hosts == PredictorSettings().sync_hosts == names
    for wrong in ("http://a", "a:80", "a/b", "*", "[x]", "a b\u00e9", "."):
        for name in ("TRANSFORMER_HOSTS", "PREDICTOR_SYNC_HOSTS"):
            monkeypatch.setenv(name, wrong)
        with pytest.raises(ValidationError, match="names of hosts with commas between, none with a scheme or a port"):
            TransformerSettings()
        with pytest.raises(ValidationError, match="names of hosts"):
            PredictorSettings()


@pytest.mark.parametrize(
    ("host", "joined"), [("localhost", "localhost:80"), ("10.0.0.1", "10.0.0.1:80"), ("fd00::1", "[fd00::1]:80")]
)
def test_addresses_of_ipv6_are_in_brackets_before_a_port(host: str, joined: str) -> None:
    assert listening.join(host, 80) == joined


@pytest.mark.skipif(not listening.has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1"}),  # noqa: S104
        ("::1", {"::1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("localhost", {"127.0.0.1", "::1"}),
    ],
)
def test_server_is_reached_where_it_listens(host: str, reached: set[str]) -> None:
    with listening.listen(host, 0) as server:
        port = server.getsockname()[1]
        found = set()
        for address in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((address, port), timeout=5).close()
            except ConnectionRefusedError:
                continue
            found.add(address)
        if host == "localhost":
            assert len(found) == 1
            assert found <= reached
        else:
            assert found == reached
            assert listening.within_reach(host) in found
        with pytest.raises(OSError, match="Address already in use"):
            listening.listen(host, port)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_address_of_another_machine_cannot_be_listened_on(host: str) -> None:
    with pytest.raises(OSError, match="Cannot assign requested address") as raised:
        listening.listen(host, 0)
    assert "while attempting" not in str(raised.value)


def test_invalid_name_cannot_be_listened_on() -> None:
    with pytest.raises(OSError, match=r"Name or service not known|Temporary failure in name resolution"):
        listening.listen("nowhere.invalid", 0)


@pytest.mark.parametrize(("given", "address"), [("[::]", "::"), ("::1", "::1"), ("127.0.0.2", "127.0.0.2")])
def test_address_of_a_setting_may_have_brackets(monkeypatch: pytest.MonkeyPatch, given: str, address: str) -> None:
    for name in ("TRANSFORMER_HOST", "PREDICTOR_ADDRESS", "PREDICTOR_SYNC_ADDRESS"):
        monkeypatch.setenv(name, given)
    predictor = PredictorSettings()
    assert (TransformerSettings().host, predictor.address, predictor.sync_address) == (address,) * 3
