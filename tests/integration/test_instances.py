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
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack, wait_until

NAME = "pods.test"


@dataclass(frozen=True)
class Pair:
    """Two instances, each with a repository of its own, so that a test decides when the second one sees a version.

    Attributes:
        repository: of `a`, which the commands write to.
        mirrored: of `b`.
        port: of the balancer before both.
    """

    a: Stack
    b: Stack
    repository: Path
    mirrored: Path
    port: int

    @property
    def url(self) -> str:
        """The URL of the balancer."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, command: str, *arguments: str, prefix: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """A command of `python -m export`."""
        words = [command, *arguments, "--repository", str(self.repository)]
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "export", *words],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return self.end(self.start(command, *arguments))

    def end(self, process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        """Wait for the end of the command."""
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def give(self) -> None:
        """Have `b` see what `a` has, each version at once."""
        for version in (self.repository / "iris").glob("[0-9]*"):
            target = self.mirrored / "iris" / version.name
            if not target.exists() and (version / "manifest.json").exists():
                shutil.copytree(version, self.mirrored.with_name("copy"))
                self.mirrored.with_name("copy").rename(target)

    def serving(self) -> list[list[str]]:
        """The versions of iris that each instance serves."""
        return [each.http.get("/status").json()["models"]["iris"]["serving"] for each in (self.a, self.b)]

    def publish(self, *arguments: str, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """Publish, and give it to `b` only when it has served at `a` for a while: the command must wait until then."""
        before = self.serving()[0]
        process = self.start("publish", "iris", "--force", *arguments, prefix=prefix)
        wait_until(lambda: self.serving()[0] != before, log=self.a.log)
        time.sleep(2)
        assert process.poll() is None, "it must not take the first for both"
        self.give()
        done = self.end(process)
        assert done.returncode == 0, done.stderr
        assert self.serving()[0] == self.serving()[1] != before
        return done


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    written, mirrored = folder / "a-models", folder / "b-models"
    for repository in (written, mirrored):
        shutil.copytree(ROOT / "model_repository" / "iris", repository / "iris")
    first, second = (
        {"PREDICTOR_INSTANCE": name, "POLL_S": "0.5", "SETTLE_S": "0.5", "TRANSFORMER_HOSTS": NAME}
        for name in ("pod-a", "pod-b")
    )
    with (
        start_stack(written, folder / "a", variables=first) as a,
        start_stack(mirrored, folder / "b", variables=second) as b,
        balance([a.http_port, b.http_port]) as port,
    ):
        yield Pair(a, b, written, mirrored, port)


def test_publish_waits_for_the_slower_instance(pair: Pair) -> None:
    last = pair.publish("--wait", pair.url).stdout.splitlines()[-1]
    assert "2 instances seen over" in last
    assert "(pod-a, pod-b); one that is not ready, or that no connection led to, is not among them" in last


def test_versions_and_rollback_see_both_instances(pair: Pair) -> None:
    newest = max(int(version) for version in pair.serving()[1])
    done = pair.run("publish", "iris", "--force", "--wait", f"http://127.0.0.1:{pair.a.http_port}")
    assert done.returncode == 0, done.stderr
    assert "1 instance seen over 8 connections in a row (pod-a)" in done.stdout
    output = " ".join(pair.run("versions", "iris", "--url", pair.url).stdout.split())
    assert "2 instances were seen: pod-a, pod-b" in output
    assert re.search(rf"serves iris {newest} \([^)]*serving on pod-b[^)]*\), iris {newest + 1} \(", output), output
    done = pair.run("rollback", "iris", "--url", pair.url)
    assert f"iris: version {newest} is pinned" in done.stdout, done.stderr
    pair.run("unpin", "iris")
    pair.give()
    wait_until(lambda: pair.serving() == [[str(newest + 1)]] * 2, log=pair.b.log)


@pytest.mark.skipif(not ipv6.may_isolate(), reason="needs root: a name with several addresses")
def test_every_address_of_a_name_gets_requests(pair: Pair, tmp_path: Path) -> None:
    # Addresses like those of a headless Service; no server listens on the third, nor on the one of IPv6.
    lines = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "::1")
    (tmp_path / "hosts").write_text("".join(f"{address} {NAME}\n" for address in lines))
    prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path}/hosts /etc/hosts && exec "$@"', "sh"]
    with (
        balance([pair.a.http_port], address="127.0.0.2") as port,
        balance([pair.b.http_port], address="127.0.0.3", port=port),
    ):
        done = pair.publish("--wait", f"http://{NAME}:{port}", prefix=prefix)
    last = done.stdout.splitlines()[-1]
    assert "2 instances seen over 16 connections in a row (pod-a, pod-b); " in last
    assert last.endswith("; no response from 127.0.0.4")


def test_several_urls_are_waited_for(pair: Pair) -> None:
    urls = [f"http://127.0.0.1:{each.http_port}" for each in (pair.a, pair.b)]
    done = pair.publish("--wait", " ".join(urls))
    for url in urls:
        assert f"serves at {url}, " in done.stdout
    assert f"pod-b at {urls[1]}: " in pair.run("versions", "--url", ",".join(urls)).stdout


def test_instance_that_never_serves_the_version_is_named(pair: Pair) -> None:
    done = pair.run("publish", "iris", "--force", "--wait", pair.url, "--timeout", "20")
    assert done.returncode == 1
    assert "does not serve after 20 s, expected it to; last seen: not listed yet; listed " in done.stderr
    assert " at pod-b; next: make versions URL=..." in done.stderr
    pair.give()


def test_instance_that_does_not_respond_fails_the_wait(pair: Pair) -> None:
    sync = pair.b.part("synchroniser")
    sync.suspend()
    try:
        done = pair.run("publish", "iris", "--force", "--wait", pair.url, "--timeout", "20")
    finally:
        sync.resume()
    assert done.returncode == 1
    assert f"{pair.url}/status: 503 the predictor is not available" in done.stderr
