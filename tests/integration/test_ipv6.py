"""IPv6: all parts where loopback has no IPv4, S3 too, and both families on `::`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ipv6
from tests.support.ports import find_free_ports, is_open
from tests.support.processes import ended
from tests.support.stack import (
    PATIENCE_S,
    ROOT,
    VERBOSE,
    free_ports,
    start_stack,
    wait_until,
    wait_until_announced,
)

if reason := ipv6.missing():
    pytest.skip(reason, allow_module_level=True)

ADDRESSES = ("TRANSFORMER_HOST", "PREDICTOR_ADDRESS", "PREDICTOR_SYNC_ADDRESS")
BUCKET = """
import sys, time, boto3
client = boto3.client("s3")
for _ in range(600):
    try:
        client.create_bucket(Bucket="models")
        break
    except Exception as exc:
        print(exc)
        time.sleep(0.1)
"""
READY = """
import sys, time, httpx
while True:
    try:
        httpx.get(sys.argv[1] + "/v2/health/ready", trust_env=False).raise_for_status()
        break
    except httpx.HTTPError:
        time.sleep(0.1)
"""
LISTENING = """
import psutil
print(*(each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN"), sep="\\n")
"""
GET = "import sys, httpx; print(httpx.get(sys.argv[1], trust_env=False).raise_for_status().text)"


@dataclass(frozen=True)
class Inside:
    """A stack that can be reached by IPv6 alone.

    Attributes:
        prefix: of every command that is to reach it.
        ports: of its parts.
        variables: with which its bucket is reached.
        log: of the stack.
    """

    prefix: list[str]
    ports: Mapping[str, int]
    variables: Mapping[str, str]
    log: Path

    @property
    def url(self) -> str:
        """The URL of the transformer."""
        return f"http://[::1]:{self.ports['HTTP_PORT']}"

    def python(self, *words: str) -> str:
        """Run Python in the namespace, and return its output."""
        done = subprocess.run(
            [*self.prefix, sys.executable, *words],
            cwd=ROOT, env=os.environ | self.variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + self.log.read_text()[-3000:]
        return done.stdout

    def get(self, port: str, path: str) -> str:
        """The response of a part."""
        return self.python("-c", GET, f"http://[::1]:{self.ports[port]}{path}")


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("ipv6")
    (s3_port,) = find_free_ports(1)
    ports = free_ports()
    variables = {
        **{"AWS_ENDPOINT_URL": f"http://[::1]:{s3_port}", "AWS_REGION": "us-east-1", "HOME": str(folder)},
        **{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"},
    }
    log = folder / "log"
    stack = {"REPOSITORY": "s3://models/demo", "MIRROR": str(folder / "mirror"), "POLL_S": "0.5", "SETTLE_S": "0.5"}
    with ipv6.only_ipv6() as prefix, log.open("wb") as output:
        found = Inside(prefix, {name: int(port) for name, port in ports.items()}, variables, log)
        s3 = subprocess.Popen(
            [*prefix, sys.executable, "-m", "moto.server", "-H", "::1", "-p", str(s3_port)],
            env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with ended(s3, patience_s=PATIENCE_S):
            found.python("-c", BUCKET)
            for model, version in (("digits", "1"), ("digit-finder", "1"), ("iris", "1")):
                found.python(
                    *("-m", "export", "publish", model, "--repository", "s3://models/demo", "--version", version)
                )
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "stack"], cwd=ROOT,
                env=os.environ | VERBOSE | variables | stack | ports | dict.fromkeys(ADDRESSES, "::1"),
                stdout=output, stderr=output,
            )  # fmt: skip
            with ended(process, patience_s=PATIENCE_S):
                found.python("-c", READY, found.url)
                yield found


def test_stack_prints_its_addresses(inside: Inside) -> None:
    wait_until_announced(inside.log)
    log = inside.log.read_text()
    assert f"ready  {inside.url} in a browser" in log
    assert f"gRPC [::1]:{inside.ports['GRPC_PORT']}" in log
    assert f"in front of Triton at [::1]:{inside.ports['TRITON_GRPC_PORT']}" in log
    assert f"status on http://[::1]:{inside.ports['SYNC_PORT']}" in log


def test_stack_on_ipv6_listens_on_no_ipv4(inside: Inside) -> None:
    listening = inside.python("-c", LISTENING)
    for port in inside.ports.values():
        (found,) = [line for line in listening.splitlines() if f"port={port})" in line]
        assert "ip='::1'" in found
    if inside.prefix:
        assert "127.0.0.1" not in inside.python("-c", "import psutil; print(psutil.net_if_addrs())")


def test_images_get_responses_over_every_protocol(inside: Inside, tmp_path: Path) -> None:
    http, grpc = (f"[::1]:{inside.ports[name]}" for name in ("HTTP_PORT", "GRPC_PORT"))
    output = inside.python("-m", "loadtest.protocols", "--http", http, "--grpc", grpc, "--requests", "2")
    assert "│ gRPC " in output
    metrics = f"http://[::1]:{inside.ports['TRITON_METRICS_PORT']}/metrics"
    output = inside.python(
        *("-m", "loadtest.latency", "run", "--url", inside.url, "--grpc", grpc, "--triton-metrics-url", metrics),
        *("--model", "digits", "--pictures", "loadtest/pictures", "--duration-s", "0.5", "--warm-up-s", "0.1"),
        *("--fail-ratio", "0", "--output", str(tmp_path)),
    )
    assert "says nothing of" not in output
    output = inside.python(
        *("-m", "loadtest.flood", "--url", inside.url, "--seconds", "3", "--repeats", "1", "--factors", "0.2"),
        *("--output", str(tmp_path / "flood.json")),
    )
    assert "│ 0.0% │" in output.replace("  ", " ")


def test_version_is_published_and_swapped_in(inside: Inside) -> None:
    repository = ["--repository", "s3://models/demo"]
    output = inside.python("-m", "export", "publish", "digits", *repository, "--force", "--wait", inside.url)
    assert f"digits 2 serves at {inside.url}" in output
    output = inside.python("-m", "export", "versions", "digits", *repository, "--url", inside.url)
    assert "serving" in output
    assert 'nereid_sync_serving_version{model="digits"} 2.0' in inside.get("SYNC_PORT", "/metrics")


@pytest.mark.parametrize(
    ("port", "path", "says"),
    [
        ("HTTP_PORT", "/metrics", "nereid_requests_total"),
        ("SYNC_PORT", "/metrics", "nereid_sync_ready 1.0"),
        ("TRITON_METRICS_PORT", "/metrics", "nv_inference_request_success"),
        ("TRITON_HTTP_PORT", "/v2", "triton"),
    ],
)
def test_metrics_are_read(inside: Inside, port: str, path: str, says: str) -> None:
    assert says in inside.get(port, path)


def test_any_address_of_ipv6_serves_both_families_but_for_tritons_http(tmp_path: Path) -> None:
    # With brackets where they may be.
    variables = {"TRANSFORMER_HOST": "::", "PREDICTOR_ADDRESS": "::", "PREDICTOR_SYNC_ADDRESS": "[::]"}
    with start_stack(ROOT / "model_repository", tmp_path / "log", variables=variables) as stack:
        both = [stack.http_port, stack.grpc_port, stack.triton_grpc_port, int(stack.sync.rpartition(":")[2])]
        one = [stack.triton_http_port, stack.triton_metrics_port]
        wait_until(lambda: all(is_open(port, "::1") for port in both + one), log=stack.log)
        assert all(is_open(port) for port in both)
        # libevhtp sets IPV6_V6ONLY.
        assert not any(is_open(port) for port in one)
        assert stack.http.get("/v2").is_success


@pytest.mark.skipif(not ipv6.may_isolate(), reason="needs root: a network without IPv6")
@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["-m", "predictor", "synchroniser"], "PREDICTOR_SYNC_ADDRESS"),
        (["-m", "predictor", "triton"], "PREDICTOR_ADDRESS"),
        (["-m", "transformer", "--predictor_host=[::1]:1"], "TRANSFORMER_HOST"),
        (["-m", "stack"], "PREDICTOR_ADDRESS"),
    ],
)
def test_machine_without_ipv6_is_reported(tmp_path: Path, words: list[str], variable: str) -> None:
    with ipv6.without_ipv6() as prefix:
        done = subprocess.run(
            [*prefix, sys.executable, *words], cwd=ROOT,
            env=os.environ | {variable: "::1", "MIRROR": str(tmp_path), "PREDICTOR_MIRROR": str(tmp_path)},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "this machine has no IPv6, expected a kernel with it; next: 0.0.0.0, or 127.0.0.1" in line
