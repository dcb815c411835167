"""Two whole stacks behind a balancer: publish waits for both, and versions and rollback see both."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ipv6
from tests.support.balancer import balance
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack

SLOW_S = 4.0


@dataclass(frozen=True)
class Pair:
    """Two instances of one repository; `b` lists it seldom.

    Attributes:
        port: of the balancer before both.
        names: a port of localhost, where its two addresses lead to one each.
    """

    a: Stack
    b: Stack
    repository: Path
    port: int
    names: int

    def run(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of `python -m export`."""
        words = [command, *arguments, "--repository", str(self.repository)]
        return subprocess.run(
            [sys.executable, "-m", "export", *words],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def serving(self) -> list[list[str]]:
        """What each serves of iris."""
        return [each.http.get("/status").json()["models"]["iris"]["serving"] for each in (self.a, self.b)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository" / "iris", repository / "iris")
    quick, slow = (
        {"PREDICTOR_INSTANCE": name, "POLL_S": str(poll_s), "SETTLE_S": "0.5"}
        for name, poll_s in (("pod-a", 0.5), ("pod-b", SLOW_S))
    )
    with (
        start_stack(repository, folder / "a", variables=quick) as a,
        start_stack(repository, folder / "b", variables=slow) as b,
        balance([a.http_port, b.http_port]) as port,
        balance([a.http_port]) as names,
    ):
        yield Pair(a, b, repository, port, names)


def test_publish_waits_for_the_slower_one(pair: Pair) -> None:
    done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.port}")
    assert done.returncode == 0, done.stderr
    assert pair.serving()[0] == pair.serving()[1]
    last = done.stdout.splitlines()[-1]
    assert "2 instances seen over" in last
    assert "(pod-a, pod-b); one that is not ready, or that no connection led to, is not among them" in last


def test_versions_and_rollback_see_both(pair: Pair) -> None:
    url = ("--url", f"http://127.0.0.1:{pair.port}")
    newest = max(int(version) for version in pair.serving()[1])
    done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.a.http_port}")
    assert done.returncode == 0, done.stderr
    assert "1 instance seen over 8 connections in a row (pod-a)" in done.stdout
    if pair.serving()[1] == [str(newest)]:  # it has not listed it meanwhile
        said = " ".join(pair.run("versions", "iris", *url).stdout.split())
        assert "2 instances were seen: pod-a, pod-b" in said
        assert f"serves iris {newest} (" in said
        assert f"iris {newest + 1} (" in said
    done = pair.run("rollback", "iris", *url)
    assert f"iris: version {newest} is pinned" in done.stdout, done.stderr
    pair.run("unpin", "iris")


def test_name_with_two_addresses_is_asked_at_both(pair: Pair) -> None:
    if ipv6.missing() or not ipv6.localhost_has_both():
        pytest.skip("localhost has no two addresses here")
    with balance([pair.b.http_port], address="::1", port=pair.names):
        done = pair.run("publish", "iris", "--force", "--wait", f"http://localhost:{pair.names}")
        assert done.returncode == 0, done.stderr
        assert "2 instances seen over 16 connections in a row (pod-a, pod-b)" in done.stdout
        assert pair.serving()[0] == pair.serving()[1]
    # One family alone is no fault of anybody.
    done = pair.run("publish", "iris", "--force", "--wait", f"http://localhost:{pair.names}")
    assert "1 instance seen over 8 connections in a row (pod-a); " in done.stdout, done.stderr
    assert "no answer" not in done.stdout


def test_several_urls_are_waited_for(pair: Pair) -> None:
    urls = [f"http://127.0.0.1:{each.http_port}" for each in (pair.a, pair.b)]
    done = pair.run("publish", "iris", "--force", "--wait", " ".join(urls))
    assert done.returncode == 0, done.stderr
    assert pair.serving()[0] == pair.serving()[1]
    for url in urls:
        assert f"serves at {url}, " in done.stdout
    assert f"pod-b at {urls[1]}: " in pair.run("versions", "--url", ",".join(urls)).stdout


def test_one_that_never_takes_it_is_named(pair: Pair) -> None:
    sync = pair.b.part("sync")
    before = pair.serving()[1]
    while pair.serving()[1] == before:  # just after a listing of its own
        pair.run("publish", "iris", "--force")
        time.sleep(SLOW_S / 4)
    sync.suspend()
    try:
        done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.port}", "--timeout", "3")
    finally:
        sync.resume()
    assert done.returncode == 1
    assert "does not serve after 3 s" in done.stderr
    assert f"the synchroniser at http://127.0.0.1:{pair.b.sync.rpartition(':')[2]}" in done.stderr
