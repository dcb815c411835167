"""The clients of the field, unmodified: the examples of docs/clients.md and README, beside the running stack."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import blocks_of, read_examples
from tests.support.stack import ROOT, Stack
from tests.support.terminal import Command, open_terminal, read_commands
from tests.support.transformer import Transformer, make_key, start_transformer

PAGE = (ROOT / "docs/clients.md").read_text()
EXAMPLES = read_examples()
CLIENTS = [
    "tritonclient.http",
    "tritonclient.grpc",
    "tritonclient.http.aio",
    "tritonclient.grpc.aio",
    "kserve.InferenceRESTClient",
    "kserve.InferenceGRPCClient",
    "supervision",
]


def on_ports(text: str, stack: Stack | Transformer) -> str:
    return text.replace("localhost:8080", f"localhost:{stack.http_port}").replace(
        "localhost:8081", f"localhost:{stack.grpc_port}"
    )


def test_page_has_an_example_for_every_client() -> None:
    assert [name for name, _, _ in EXAMPLES] == CLIENTS


@pytest.mark.parametrize(("name", "program", "output"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_example_of_the_page_prints_what_it_says(stack: Stack, name: str, program: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", on_ports(program, stack)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == output, name


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed: apt-get install curl")
def test_curl_lines_of_the_page_succeed(stack: Stack) -> None:
    (block,) = re.findall(r"^## curl\n\n```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    outputs = [
        subprocess.run(
            ["sh", "-c", on_ports(line, stack)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for line in block.splitlines()
    ]
    predict, v1, v2, raw = outputs
    assert [found["class"] for found in json.loads(predict)["predictions"]] == ["2", "7", "0"]
    assert len(json.loads(v1)["predictions"][0]["predictions"]) == 7
    assert json.loads(json.loads(v2)["outputs"][0]["data"][0])["class"] == "virginica"
    assert raw == "200\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed: apt-get install curl")
def test_requests_of_the_readme_get_the_responses_that_it_shows(stack: Stack, tmp_path: Path) -> None:
    (block,) = blocks_of(ROOT / "README.md", "Three requests")
    ports = {"HTTP_PORT": str(stack.http_port), "GRPC_PORT": str(stack.grpc_port)}
    assert "/tmp/boxes.png" in block  # noqa: S108 - of the page
    terminal = open_terminal(tmp_path, ports)
    # Version 1 on the page; here whatever the exports of this checkout came to.
    (version,) = stack.http.get("/v2/models/digit-finder").json()["versions"]
    block = block.replace('"version": "1"', f'"version": "{version}"')
    for command in read_commands(block):
        text = command.text.replace("/tmp/boxes.png", f"{tmp_path}/boxes.png")  # noqa: S108
        printed = terminal.type(Command(f"{text} --silent --show-error --fail", command.output))
        if "/predict/iris" in text:
            assert json.loads(printed)["predictions"][0]["class"] == "virginica"
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")


def test_examples_with_a_key_print_what_they_say(stack: Stack, tmp_path: Path) -> None:
    section = PAGE.partition("## With an API key")[2]
    programs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", section, re.DOTALL)
    (line,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    assert len(programs) == 2
    key = make_key("clients", tmp_path / "keys.txt")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt")}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as guarded:

        def run(*command: str, key: str = key) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*command[:-1], on_ports(command[-1], guarded)],
                cwd=ROOT, env=os.environ | {"NEREID_API_KEY": key},
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        for program, output in programs:
            done = run(sys.executable, "-W", "ignore", "-c", program)
            assert (done.returncode, done.stdout) == (0, output), done.stderr
            assert run(sys.executable, "-W", "ignore", "-c", program, key="nereid_wrong").returncode != 0
        if shutil.which("curl"):
            assert json.loads(run("bash", "-c", line).stdout)["name"] == "iris"
            assert "error" in run("bash", "-c", line, key="nereid_wrong").stdout


def test_protocols_are_measured_side_by_side(stack: Stack) -> None:
    addresses = ["--http", f"localhost:{stack.http_port}", "--grpc", f"localhost:{stack.grpc_port}"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.protocols", *addresses, "--requests", "2"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for protocol in ("/predict, raw body", "/predict, multipart", "v1, base64", "v2, base64", "v2, binary", "gRPC"):
        assert f"│ {protocol} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--picture", "nowhere.jpg"], "error: --picture nowhere.jpg: No such file or directory"),
        (["--model", "iris"], '"code":"invalid_request"'),
        (["--model", "none"], '"code":"model_not_found"'),
        (["--http", "localhost:1"], "is `make serve` running?"),
        (["--grpc", "localhost:1"], "error: gRPC: UNAVAILABLE"),
        (["--requests", "1"], "got '1', expected a whole number from 2"),
    ],
)
def test_protocols_that_cannot_be_measured_say_why(stack: Stack, arguments: list[str], says: str) -> None:
    addresses = ["--http", f"localhost:{stack.http_port}", "--grpc", f"localhost:{stack.grpc_port}"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.protocols", *addresses, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
