"""The arguments of Triton's container: known to Triton, those of the laptop, and a server comes up with them."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from predictor.settings import Settings
from predictor.triton.command import compose_command
from predictor.triton.installation import Installation, find_installation
from predictor.triton_conventions import ACCESS_HEADER
from tests.manifests import programs
from tests.manifests.environment import SECRET, environment_of
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import KUBECTL_MISSING, ROOT, Render, find_folders, has_kubectl, render
from tests.support.ports import find_free_ports
from tests.support.stack import wait_until

INSTALLED = ROOT / ".venv-triton" / ".installed"
# The container's command line lacks these, or has another value, and why.
DIFFERENCES = {
    "--backend-directory": "NVIDIA's image has its backends where Triton looks by itself",
    "--backend-config": "shared memory between Triton and Python-based backends; NVIDIA's backends have none",
    "--allow-gpu-metrics": "a cluster may have a GPU",
    "--disable-auto-complete-config": "it costs NVIDIA's backends no process, and they report no incomplete config",
    "--log-verbose": "0 is Triton's own default",
    "--metrics-address": "Prometheus comes from outside of the pod",
    "--grpc-address": "overlays/separate-transformer: the transformer connects from another pod",
    "--grpc-max-connection-age": "overlays/separate-transformer: clients learn of new replicas",
    "--grpc-max-connection-age-grace": "overlays/separate-transformer: clients learn of new replicas",
    "--load-model": "the script of the container adds them, from the mirror",
    "--http-port": "tests choose it",
    "--grpc-port": "tests choose it",
    "--metrics-port": "tests choose it",
}
START_S = 60.0
STOP_S = 30.0

pytestmark = pytest.mark.skipif(not INSTALLED.is_file(), reason="needs the embedded Triton (make test installs it)")


@pytest.fixture(scope="module")
def installation() -> Installation:
    return find_installation(ROOT / ".venv-triton")


def words_of(rendered: Render) -> list[list[str]]:
    """The command lines of the containers that run `tritonserver`, as the kubelet gives them."""
    return [
        programs.words_of(container, environment_of(container, pod, rendered))
        for pod in pods_of(rendered)
        for container in containers_of(pod)
        if programs.program_of(container) == programs.TRITON
    ]


def flags_of(words: list[str]) -> dict[str, list[str]]:
    return programs.flags_of(words[words.index(programs.TRITON) + 1 :])


@cache
def known_flags(tritonserver: str, library_path: str) -> frozenset[str]:
    """Flags that `tritonserver --help` names."""
    done = subprocess.run(
        [tritonserver, "--help"],
        env=os.environ | {"LD_LIBRARY_PATH": library_path},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    return frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))


def test_triton_knows_every_flag(rendered: Render, installation: Installation) -> None:
    argv, env = compose_command(Settings(), installation, environ=os.environ)
    known = known_flags(argv[0], env.get("LD_LIBRARY_PATH", ""))
    assert "--model-control-mode" in known
    for words in words_of(rendered):
        assert set(flags_of(words)) <= known


def test_flags_are_those_of_the_laptop_but_for_the_named(rendered: Render, installation: Installation) -> None:
    for words in words_of(rendered):
        flags = flags_of(words)
        if "/mirror/models" not in flags["--model-repository"]:
            continue  # KServe's own way: an immutable repository, and no synchroniser
        settings = Settings(mirror=Path("/mirror"), secret=SecretStr(SECRET))
        composed = programs.flags_of(compose_command(settings, installation, environ={})[0][1:])
        for name in (set(flags) | set(composed)) - set(DIFFERENCES):
            assert flags.get(name) == composed.get(name), name
        restricted = flags["--http-restricted-api"][0]
        assert restricted.endswith(f":{ACCESS_HEADER}={SECRET}")


def distinct() -> list[tuple[str, ...]]:
    """Each command line of the manifests once."""
    if not has_kubectl():
        return []
    return sorted({tuple(words) for name in find_folders() for words in words_of(render(name))})


@contextmanager
def started(words: tuple[str, ...], folder: Path, installation: Installation) -> Iterator[tuple[int, int, Path]]:
    """Run a container's command line with a folder as /mirror, on free ports of loopback; HTTP port, PID, log."""
    http, grpc, metrics = find_free_ports(3)
    program, env = compose_command(Settings(), installation, environ=os.environ)
    env["PATH"] = os.pathsep.join([str(Path(program[0]).parent), env["PATH"]])
    command = [word.replace("/mirror", str(folder)).replace("0.0.0.0", "127.0.0.1") for word in words]  # noqa: S104
    command = [word for word in command if not re.match("--(http|grpc|metrics)-port=", word)]
    command += [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        yield http, process.pid, log
        process.terminate()
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait()


def test_command_line_serves_and_keeps_its_interfaces_closed(tmp_path: Path, installation: Installation) -> None:
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    lines = [words for words in distinct() if any("/mirror/models" in word for word in words)]
    assert lines
    for index, words in enumerate(lines):
        folder = tmp_path / str(index)
        folder.mkdir()
        with started(words, folder, installation) as (port, _, log), httpx.Client(trust_env=False) as client:
            # Nothing before the synchroniser has laid out the mirror.
            assert log.read_text() == ""
            (folder / "models").mkdir()
            (folder / "trial").mkdir()
            url = f"http://127.0.0.1:{port}/v2"

            def is_live(client: httpx.Client = client, url: str = url) -> bool:
                try:
                    return client.get(f"{url}/health/live").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_live, log=log)
            assert client.post(f"{url}/repository/index", json={}).status_code == 403
            assert client.post(f"{url}/repository/index", json={}, headers={ACCESS_HEADER: SECRET}).json() == []


def test_command_line_ends_before_the_mirror_is_there(tmp_path: Path, installation: Installation) -> None:
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    words = next(words for words in distinct() if any("/mirror/models" in word for word in words))
    with started(words, tmp_path, installation) as (_, pid, log):
        # Its shell waits, and knows by now what to do at a signal.
        wait_until(lambda: bool(psutil.Process(pid).children()), log=log)
