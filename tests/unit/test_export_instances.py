"""Several instances of a server: how their states are merged, and which addresses are queried."""

import socket
from typing import Any

import pytest

from export.errors import ExportError
from export.publish.instances import Endpoint
from export.publish.server_client import States, consecutive_connections
from export.publish.states import is_rejected, merge
from export.publish.watch import Served

SERVING = {"state": "serving", "reason": None, "since": "then"}
STAGED = {"state": "staged", "reason": "validating"}
REJECTED = {"state": "refused", "reason": "NaN"}


def test_instances_that_agree_are_one() -> None:
    assert merge({}) == {}
    assert merge({"a": {1: SERVING}}) == {1: SERVING}
    assert merge({"a": {1: SERVING}, "b": {1: {**SERVING, "since": "now"}}}) == {1: SERVING}


@pytest.mark.parametrize(
    ("by_instance", "state", "reason", "rejected"),
    [
        ({"a": {2: SERVING}, "b": {2: STAGED}}, "serving", "serving on a; staged: validating on b", False),
        ({"a": {2: STAGED}, "b": {2: SERVING}}, "serving", "staged: validating on a; serving on b", False),
        ({"a": {2: REJECTED}, "b": {2: SERVING}}, "serving", "refused: NaN on a; serving on b", True),
        ({"a": {}, "b": {2: SERVING}, "c": {}}, "serving", "not listed yet on a, c; serving on b", False),
    ],
)
def test_where_instances_differ_all_are_named(
    by_instance: dict[str, States], state: str, reason: str, rejected: bool
) -> None:
    found = merge(by_instance)[2]
    assert (found["state"], found["reason"], is_rejected(found)) == (state, reason, rejected)


def test_more_instances_need_more_connections() -> None:
    assert [consecutive_connections(count) for count in (0, 1, 2, 50, 1000)] == [8, 8, 16, 400, 512]
    # The share of runs in which a random balancer hides a further instance.
    assert max((1 - 1 / (known + 1)) ** consecutive_connections(known) for known in range(1, 64)) < 1 / 250


@pytest.mark.parametrize(
    ("served", "says"),
    [
        (Served(1.0, 8, ["a"], []), "1 instance seen over 8 connections in a row (a); one that is not ready"),
        (Served(1.0, 8, [], []), "how many instances these led to is not known, for none names itself"),
        (Served(1.0, 96, [f"p{n:02}" for n in range(12)], []), "12 instances seen over 96 connections in a row (p00, "),
        (Served(1.0, 96, [f"p{n:02}" for n in range(12)], []), "p09 and 2 more)"),
        (Served(1.0, 8, ["a"], ["10.0.0.3"]), "; no response from 10.0.0.3"),
    ],
)
def test_last_line_says_what_was_seen(served: Served, says: str) -> None:
    assert says in served.describe()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        known = {"one.test": ["10.0.0.1"], "two.test": ["10.0.0.1", "10.0.0.2", "10.0.0.1", "fd00::1", "fe80::1%eth0"]}
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in known[host]]

    monkeypatch.setattr("socket.getaddrinfo", resolve)


@pytest.mark.usefixtures("names")
def test_name_with_several_addresses_has_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoint("http://one.test").addresses() == [""]
    assert Endpoint("http://nowhere.test").addresses() == [""]
    endpoint = Endpoint("http://two.test:8080/prefix")
    assert endpoint.addresses() == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert endpoint.exclude(["10.0.0.1"], ["10.0.0.2", "fd00::1"]) == {"10.0.0.2"}
    assert endpoint.addresses() == ["10.0.0.1", "10.0.0.2"]
    # A proxy resolves the name, and may know another one.
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    assert Endpoint("http://two.test").addresses() == [""]
    assert len(Endpoint("https://two.test").addresses()) == 3
    monkeypatch.setenv("NO_PROXY", "two.test")
    assert len(Endpoint("http://two.test").addresses()) == 3


@pytest.mark.usefixtures("names")
def test_nothing_is_excluded_where_no_address_responds() -> None:
    endpoint = Endpoint("http://two.test")
    assert endpoint.exclude([], ["10.0.0.1", "10.0.0.2", "fd00::1"]) == set()
    assert len(endpoint.addresses()) == 3


@pytest.mark.parametrize("url", ["two.test", "ftp://two.test", "http://two.test:x"])
def test_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ExportError, match="expected such as http://localhost:8080"):
        Endpoint(url)
