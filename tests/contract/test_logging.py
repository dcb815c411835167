"""The files of manifests/logging fit each other, the chart's values and the lines that the parts write.

tests/e2e/test_fluent_bit.py runs them in the real Fluent Bit.
"""

import re
from typing import Any

import pytest
import yaml

from tests.support.fluent_bit import FOLDER, POD
from tests.support.stack import ROOT

OUTPUTS = ("loki", "cloudwatch", "stdout")
PIPELINE = (FOLDER / "fluent-bit.yaml").read_text()
PAGE = (FOLDER / "README.md").read_text()
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())


def settings_of(file: str) -> dict[str, str]:
    """The variables of an .env file, as kubectl reads them."""
    lines = (ROOT / "manifests" / file).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("output", OUTPUTS)
def test_variables_of_the_pipeline_are_set(output: str) -> None:
    read = set(re.findall(r"\$\{(\w+)\}", PIPELINE + (FOLDER / f"{output}.yaml").read_text()))
    written = settings_of(f"logging/{output}.env").keys() | {each["name"] for each in VALUES["env"]}
    secret = {"LOKI_USER", "LOKI_PASSWORD"} if output == "loki" else set()
    assert read == written | secret
    assert all(name in (FOLDER / f"{output}.env").read_text() for name in secret)


def test_state_is_on_the_volume_that_the_chart_mounts() -> None:
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in VALUES["daemonSetVolumeMounts"]}
    assert mounts == {"/var/log": True, "/state": False}
    assert set(re.findall(r" (/\w+)/", PIPELINE)) == {"/state"}
    assert all(
        settings_of(f"logging/{output}.env")["LOG_FILES"].startswith("/var/log/containers/") for output in OUTPUTS
    )


def test_version_of_the_chart_is_the_same_everywhere() -> None:
    head = (FOLDER / "values.yaml").read_text().splitlines()[0]
    chart, program = re.findall(r"\d+\.\d+\.\d+", head)
    assert VALUES["image"]["tag"] == program
    assert re.findall(r"--version (\S+)", PAGE) == [chart]
    assert f"Fluent Bit {program}" in PAGE


@pytest.mark.parametrize("file", ["base/settings.env", "worker/worker.env"])
def test_parts_write_json(file: str) -> None:
    assert settings_of(file)["LOG_FORMAT"] == "json"


@pytest.mark.parametrize(
    ("parser", "text", "fields"),
    [
        (
            "file-name",
            f"/var/log/containers/{POD}_nereid_kserve-container-{'0f' * 32}.log",
            {"pod": POD, "namespace": "nereid", "container": "kserve-container"},
        ),
        (
            "triton",
            'W1128 00:11:13.794418 1 pinned_memory_manager.cc:273] "no \\"pinned\\" memory"',
            {"level": "W", "logger": "pinned_memory_manager.cc:273", "message": 'no \\"pinned\\" memory'},
        ),
        (
            "triton",
            "I1128 00:11:13.795529 1 server.cc:604] \n+--+\n| a |\n+--+\n",
            {"level": "I", "logger": "server.cc:604", "message": "\n+--+\n| a |\n+--+"},
        ),
        (
            "text",
            "2026-11-28 00:12:11,724 WARNING synchroniser digits: version 2 was rejected",
            {"time": "2026-11-28 00:12:11,724", "level": "WARNING", "logger": "synchroniser"}
            | {"message": "digits: version 2 was rejected"},
        ),
        ("request-id", "[request id: abc-1] prepared", {"request_id": "abc-1"}),
    ],
)
def test_parsers_read_lines(parser: str, text: str, fields: dict[str, str]) -> None:
    (pattern,) = (each["regex"] for each in yaml.safe_load(PIPELINE)["parsers"] if each["name"] == parser)
    found = re.search(pattern.replace("(?<", "(?P<"), text)
    assert found
    assert found.groupdict() == fields
