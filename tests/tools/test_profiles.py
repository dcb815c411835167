"""`nereid profiles` on the real stack, a stack for each profile."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support.stack import ROOT
from tests.support.versions import seal

_PATIENCE_S = 300


def profiles(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest.profiles", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
    )  # fmt: skip


def test_each_profile_is_measured_and_one_is_advised(tmp_path: Path) -> None:
    output = tmp_path / "profiles.json"
    short = ("--seconds", "0.5", "--repeats", "1", "--connections", "1", "2", "--output", str(output))
    done = profiles("digit-finder", *short)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_bytes())
    found = document["profiles"]
    assert list(found) == ["fp32", "fast", "int8"]
    assert found["fp32"]["runs"] == "ONNX Runtime, FP32"
    assert found["int8"]["runs"].startswith("OpenVINO, 8 bits, ")
    for each in found.values():
        assert set(each["requests_per_s"]) == {"1", "2"}
        assert min(each["requests_per_s"].values()) > 0
        assert each["p95_ms"]["1"] >= each["p50_ms"]["1"] > 0
        assert each["memory_mib"] > 100
        assert each["precision"] > 0.9
    assert document["advice"].startswith("take ")
    assert document["advice"] in done.stdout.replace("\n", " ")
    assert document["machine"] in done.stdout


def test_profile_that_this_machine_rejects_is_named_beside_the_others(tmp_path: Path) -> None:
    version = tmp_path / "digit-finder" / "1"
    shutil.copytree(ROOT / "model_repository" / "digit-finder" / "1", version)
    golden = version / "golden.int8.npz"
    with np.load(golden) as arrays:
        changed = {name: 1 - arrays[name] if name == "scores" else arrays[name] for name in arrays.files}
    np.savez(golden, **changed)
    seal(version)
    output = tmp_path / "profiles.json"
    short = ("--seconds", "0.5", "--repeats", "1", "--connections", "1", "--output", str(output))
    done = profiles("digit-finder", "--repository", str(tmp_path), *short)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_bytes())
    assert list(document["profiles"]) == ["fp32", "fast"]
    assert list(document["rejected"]) == ["int8"]
    assert "int8: this machine rejects it: golden input: got nothing like" in done.stdout


def test_unknown_model_is_reported_with_those_that_are_there() -> None:
    done = profiles("none")
    assert done.returncode == 1
    assert "none: got no version with manifest.json, expected one of digit-classes, digit-finder" in done.stdout


def test_model_that_is_rejected_as_a_whole_is_reported_at_once(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "model_repository" / "digit-finder" / "1", tmp_path / "digit finder" / "1")
    done = profiles("digit finder", "--repository", str(tmp_path))  # not after the time in which a stack gets ready
    assert done.returncode == 1
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: 'digit finder' is no model's name: expected letters, digits and")
