"""The scripts of `make kind-*`. There is no cluster: a kubectl that forwards to the local stack takes its place."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.executables import put
from tests.support.s3 import start_s3
from tests.support.stack import ROOT, start_stack
from tests.support.transformer import make_key

FOLDER = ROOT / "manifests" / "kind"
SCRIPTS = ("up", "test", "down")
KUBECTL = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
    *port-forward*s3*) echo $$ >> {log}.pids; echo "Forwarding from 127.0.0.1:{s3} -> 8333"; exec sleep 600 ;;
    *port-forward*) echo $$ >> {log}.pids; echo "Forwarding from 127.0.0.1:{http} -> 10080"; exec sleep 600 ;;
    *status.url*) printf http://nereid-nereid.example.com ;;
    *readyReplicas*) printf 2 ;;
    *"get service"*) printf envoy-kserve ;;
esac
"""


def run(script: str, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with this PATH."""
    return subprocess.run(
        ["/bin/bash", str(FOLDER / script)],
        env=os.environ | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def make_programs(folder: Path, *absent: str) -> str:
    """PATH with the programs that the scripts call, but for `absent`; the cluster exists, and they do nothing."""
    tools = folder / "tools"
    for name in {"docker", "helm", "kind", "kubectl"} - set(absent):
        put(tools, name, "#!/bin/sh\necho nereid\n")
    for name in ("dirname", "grep", "curl", "mktemp", "rm", "sed"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    return str(tools)


def test_scripts_are_clean() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{ROOT}/.venv/bin:{os.environ['PATH']}")
    assert shellcheck
    files = [str(FOLDER / name) for name in (*SCRIPTS, "common.sh")]
    done = subprocess.run(
        [shellcheck, "--external-sources", f"--source-path={FOLDER}", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_versions_are_pinned() -> None:
    (node,) = yaml.safe_load((FOLDER / "cluster.yaml").read_text())["nodes"]
    assert re.fullmatch(r"kindest/node:v1\.\d+\.\d+@sha256:[0-9a-f]{64}", node["image"])
    installed = [line for line in (FOLDER / "up").read_text().splitlines() if "upgrade --install" in line]
    versions = re.findall(r'--version "\$(\w+)"', (FOLDER / "up").read_text())
    assert len(versions) == len(installed)
    for name in versions:
        assert re.search(rf"{name}=v\d+\.\d+\.\d+\b", (FOLDER / "common.sh").read_text())


@pytest.mark.parametrize("absent", ["docker", "kind", "kubectl", "helm"])
@pytest.mark.parametrize("script", ["up", "test"])
def test_missing_program_is_an_error_with_the_next_step(script: str, absent: str, tmp_path: Path) -> None:
    done = run(script, make_programs(tmp_path, absent))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {absent} is missing; next: https://")


def test_missing_cluster_is_an_error(tmp_path: Path) -> None:
    path = make_programs(tmp_path)
    put(Path(path), "kind", "#!/bin/sh\n")
    done = run("test", path)
    assert (done.returncode, done.stderr) == (1, "error: cluster nereid is missing; next: make kind-up\n")


def test_script_passes_on_a_healthy_stack(tmp_path: Path) -> None:
    with start_s3(tmp_path / "s3.log") as s3:
        s3.upload(ROOT / "model_repository" / "digit-finder", "nereid/digit-finder")
        # The gateway of a cluster passes the host on to a server that takes every one.
        variables = s3.environment() | {"POLL_S": "0.5", "SETTLE_S": "0.5"}
        variables |= {"TRANSFORMER_HOSTS": "nereid-nereid.example.com"}
        key = make_key("kind", tmp_path / "keys.txt")
        variables |= {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt")}
        with start_stack("s3://models/nereid", tmp_path / "log", variables=variables) as stack:
            tools = Path(make_programs(tmp_path))
            log = tmp_path / "kubectl.log"
            put(tools, "kubectl", KUBECTL.format(log=log, s3=s3.url.rsplit(":", 1)[1], http=stack.http_port))
            path = f"{tools}:{os.environ['PATH']}"
            rejected = [run("test", path, NEREID_API_KEY=wrong) for wrong in ("", "nereid_wrong")]
            done = run("test", path, NEREID_API_KEY=key)
    for status, without in zip(("401", "403"), rejected, strict=True):
        assert without.returncode == 1
        assert without.stderr.endswith(
            f": {status} for nereid-nereid.example.com; next: NEREID_API_KEY=<one of the server's keys>\n"
        )
        assert len(without.stderr.splitlines()) == 1
    assert key not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^good: \d+ requests meanwhile, none failed$", done.stdout, re.MULTILINE)
    pids = [int(pid) for pid in (tmp_path / "kubectl.log.pids").read_text().split()]
    assert len(pids) == 2 * (1 + len(rejected))
    assert not any(psutil.pid_exists(pid) for pid in pids)
    # Whatever the user's current context is, it is left alone.
    assert all(line.startswith("--context kind-nereid ") for line in log.read_text().splitlines())
