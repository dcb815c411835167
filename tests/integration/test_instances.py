"""Two whole stacks behind a balancer: publish waits for both, and versions and rollback see both."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ipv6
from tests.support.balancer import balance
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack

NAME = "pods.test"
SLOW_S = 15.0


@dataclass(frozen=True)
class Pair:
    """Two instances of one repository; `b` lists it seldom.

    Attributes:
        port: of the balancer before both.
    """

    a: Stack
    b: Stack
    repository: Path
    port: int

    def run(self, command: str, *arguments: str, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """A command of `python -m export`."""
        words = [command, *arguments, "--repository", str(self.repository)]
        return subprocess.run(
            [*prefix, sys.executable, "-m", "export", *words],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def wait_for_listing(self) -> None:
        """Until `b` has just listed the repository: it will not see for a while what comes now."""
        before = self._listed()
        deadline = time.monotonic() + PATIENCE_S
        while self._listed() == before:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _listed(self) -> str:
        return str(self.b.http.get("/status").json()["listing"]["at"])

    def serving(self) -> list[list[str]]:
        """What each serves of iris."""
        return [each.http.get("/status").json()["models"]["iris"]["serving"] for each in (self.a, self.b)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository" / "iris", repository / "iris")
    quick, slow = (
        {"PREDICTOR_INSTANCE": name, "POLL_S": str(poll_s), "SETTLE_S": "0.5", "TRANSFORMER_HOSTS": NAME}
        for name, poll_s in (("pod-a", 0.5), ("pod-b", SLOW_S))
    )
    with (
        start_stack(repository, folder / "a", variables=quick) as a,
        start_stack(repository, folder / "b", variables=slow) as b,
        balance([a.http_port, b.http_port]) as port,
    ):
        yield Pair(a, b, repository, port)


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
    pair.wait_for_listing()
    done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.a.http_port}")
    assert done.returncode == 0, done.stderr
    assert "1 instance seen over 8 connections in a row (pod-a)" in done.stdout
    said = " ".join(pair.run("versions", "iris", *url).stdout.split())
    assert "2 instances were seen: pod-a, pod-b" in said
    assert re.search(rf"serves iris {newest} \([^)]*serving on pod-b[^)]*\), iris {newest + 1} \(", said), said
    done = pair.run("rollback", "iris", *url)
    assert f"iris: version {newest} is pinned" in done.stdout, done.stderr
    pair.run("unpin", "iris")


@pytest.mark.skipif(not ipv6.may_isolate(), reason="needs root: a name with several addresses")
def test_name_with_several_addresses_is_asked_at_each(pair: Pair, tmp_path: Path) -> None:
    # As a headless Service has them; nobody listens on the third, nor on any of IPv6.
    lines = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "::1")
    (tmp_path / "hosts").write_text("".join(f"{address} {NAME}\n" for address in lines))
    prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path}/hosts /etc/hosts && exec "$@"', "sh"]
    with (
        balance([pair.a.http_port], address="127.0.0.2") as port,
        balance([pair.b.http_port], address="127.0.0.3", port=port),
    ):
        done = pair.run("publish", "iris", "--force", "--wait", f"http://{NAME}:{port}", prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert pair.serving()[0] == pair.serving()[1]
    last = done.stdout.splitlines()[-1]
    assert "2 instances seen over 16 connections in a row (pod-a, pod-b); " in last
    assert last.endswith("; no answer from 127.0.0.4")


def test_several_urls_are_waited_for(pair: Pair) -> None:
    urls = [f"http://127.0.0.1:{each.http_port}" for each in (pair.a, pair.b)]
    done = pair.run("publish", "iris", "--force", "--wait", " ".join(urls))
    assert done.returncode == 0, done.stderr
    assert pair.serving()[0] == pair.serving()[1]
    for url in urls:
        assert f"serves at {url}, " in done.stdout
    assert f"pod-b at {urls[1]}: " in pair.run("versions", "--url", ",".join(urls)).stdout


def test_one_that_never_takes_it_is_named(pair: Pair) -> None:
    pair.wait_for_listing()
    done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.port}", "--timeout", "5")
    assert done.returncode == 1
    assert "does not serve after 5 s, expected it to; the last that is known: " in done.stderr
    assert re.search(r"not listed yet[^;]*(; listed [^;]*)? at pod-b; ", done.stderr)
    sync = pair.b.part("sync")
    sync.suspend()
    try:
        done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.port}", "--timeout", "12")
    finally:
        sync.resume()
    assert done.returncode == 1
    assert "does not serve after 12 s" in done.stderr
    assert f"http://127.0.0.1:{pair.port}/status: 503 the predictor is not available" in done.stderr
