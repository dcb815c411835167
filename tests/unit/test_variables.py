"""make's variables: names that are none, values that cannot be."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from containers import build
from export.writer.profiles import PROFILES
from predictor.settings import Settings
from registry.layout import DEFAULT_PROFILE
from registry.profiles import AUTO, OPENVINO
from stack import variables
from tests.support.pages import read_all
from transformer.settings import TransformerSettings

ROOT = Path(__file__).resolve().parents[2]


def _make(*arguments: str, environ: Mapping[str, str] = MappingProxyType({})) -> "subprocess.CompletedProcess[str]":
    # The make that runs the tests exports its own.
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES"}}
    command = ["make", "--dry-run", "--no-print-directory", *(arguments or ["help"])]
    return subprocess.run(command, cwd=ROOT, env=own | dict(environ), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("HTTP_PROT=8090", "HTTP_PROT: no such variable; did you mean HTTP_PORT?"),
        ("model=yolov8n", "model: no such variable; did you mean MODEL?"),
        ("TRANSFORMER_THREDS=2", "did you mean TRANSFORMER_THREADS?"),
        ("XQZ=1", "XQZ: no such variable; next: make help"),
        (
            "PROFILE=fasst",
            "PROFILE: got 'fasst', expected one of auto, fast, fp32, gpu, int8, openvino, tensorrt; did you mean fast?",
        ),
        ("HTTP_PORT=80900", "HTTP_PORT: got '80900', expected a whole number from 1 to 65535"),
        ("HTTP_PORT=http", "HTTP_PORT: got 'http', expected a whole number"),
        ("POLL_S=0", "POLL_S: got '0', expected a number, 0.1 or more"),
        ("FORCE=0", "FORCE: got '0', expected 1, or nothing"),
        ("NMS_FREE=0", "NMS_FREE: got '0', expected 1, or nothing"),
        ("INTERFACE=fuse", "INTERFACE: got 'fuse', expected one of fused, ultralytics; did you mean fused?"),
        ("PRECISION=bf16 int", "PRECISION: got 'bf16 int', expected some of fp32, bf16, int8; did you mean int8?"),
        (
            "TORCH_BACKEND=cu130",
            "TORCH_BACKEND: got 'cu130', expected cpu or auto: of no other build of torch the hashes",
        ),
        ("TAG=a/b", "TAG: got 'a/b', expected letters, digits, _ . -, at most 128, none of . - in front"),
        (
            "PLATFORM=arm64",
            "PLATFORM: got 'arm64', expected one of linux/amd64, linux/arm64; did you mean ",
        ),
        ("ENGINE=dokcer", "ENGINE: got 'dokcer', expected one of docker, podman, buildah; did you mean docker?"),
        ("PODS=0", "PODS: got '0', expected a whole number, 1 or more"),
        ("VERSION=latest", "VERSION: got 'latest', expected a whole number, 1 or more"),
    ],
)
def test_make_rejects_a_wrong_variable_in_one_line(given: str, says: str) -> None:
    done = _make(given)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        ("HTTP_PORT=8090", "PROFILE=int8", "REPOSITORY=it's", "MODEL=a b", "NAME=$HOME"),
        (
            "AWS_PROFILE=x",
            "HTTPS_PROXY=http://host",
            "OTEL_SERVICE_NAME=x",
            "NEREID_API_KEY=x",
            "TRANSFORMER_THREADS=2",
        ),
        ("TAG=0.1.1-rc.1", "PLATFORM=linux/arm64", "ENGINE=buildah", "PODS=50"),
        ("FORCE=", "PRECISION=bf16 int8", "PROFILE=mine", "REPOSITORY=s3://models"),
        (),
    ],
)
def test_make_takes_what_something_reads(given: tuple[str, ...]) -> None:
    assert _make(*given).returncode == 0


def test_tag_of_an_image_is_judged_as_images_py_judges_it() -> None:
    for tag in ("1", "0.1.0", "a" * 128, "a" * 129, "-a", ".a", "a/b"):
        assert (not variables.judge_value("TAG", tag)) == bool(build.TAG.fullmatch(tag))
    for platform in build.PLATFORMS:
        assert not variables.judge_value("PLATFORM", platform)


@pytest.mark.parametrize(("value", "is_forced"), [("1", True), ("0", False), ("false", False), ("", False)])
def test_flag_that_the_shell_has_counts_where_it_is_1(value: str, is_forced: bool) -> None:
    environ = {"FORCE": value, "YES": value, "VERSION": "v1.2.3", "SHOWN": "x", "HTTP_PROT": "1"}
    for target, flag in (("publish", "--force"), ("prune", "--yes")):
        done = _make(target, "MODEL=iris", "REPOSITORY=s3://models", environ=environ)
        assert done.returncode == 0, done.stderr
        assert (flag in done.stdout) == is_forced


def test_own_profile_of_a_repository_is_one(tmp_path: Path) -> None:
    assert "expected one of" in variables.judge_profile("mine", tmp_path)
    (tmp_path / "a" / "configs").mkdir(parents=True)
    (tmp_path / "a" / "configs" / "mine.pbtxt").touch()
    assert variables.judge_profile("mine", tmp_path) == ""
    assert "did you mean mine?" in variables.judge_profile("mime", tmp_path)


def test_profiles_are_those_of_export() -> None:
    assert set(variables.PROFILES) == PROFILES | {DEFAULT_PROFILE, AUTO, OPENVINO}


def test_names_of_the_parts_are_those_of_their_settings() -> None:
    for prefix, settings in (("PREDICTOR_", Settings), ("TRANSFORMER_", TransformerSettings)):
        assert variables.settings_names(prefix) == {f"{prefix}{name.upper()}" for name in settings.model_fields}


def test_variables_of_kubernetes_services_are_no_settings() -> None:
    environ = {"TRANSFORMER_PORT": "tcp://10.0.0.1:80", "TRANSFORMER_SERVICE_HOST": "10.0.0.1", "PREDICTOR_PRT": "1"}
    (problem,) = variables.find_unknown(environ)
    assert problem.startswith("PREDICTOR_PRT: no such variable")


def test_pages_give_make_what_it_takes() -> None:
    known = variables.known_names()
    text = re.sub(r'"[^"\n]*"', "x", read_all())
    commands = re.findall(r"\bmake [a-z0-9-]+((?: [A-Za-z_0-9]+=\S*)+)", text)
    names = {word.partition("=")[0] for command in commands for word in command.split()}
    assert len(names) > 20
    assert not [problem for name in sorted(names) if (problem := variables.judge_name(name, known))]


def test_torch_without_cuda_is_installed_by_hashes_of_its_own() -> None:
    option = "--torch-backend cpu --constraints requirements/torch-cpu.txt"
    assert option in _make("--always-make", "TORCH_BACKEND=cpu", ".venv/.ultralytics").stdout
    assert "--torch-backend" not in _make(".venv/.ultralytics").stdout


def test_export_installs_what_its_file_needs(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    for weights, exporter, installed in (
        ("yolov8n.pt", "ultralytics", ".venv/.ultralytics"),
        ("digits.keras", "keras", ".venv/.keras"),
        (str(tmp_path), "keras", ".venv/.keras"),
        ("digits.onnx", "ultralytics", ""),
    ):
        recipe = _make("export", "MODEL=m", f"WEIGHTS={weights}").stdout
        assert f'export {exporter} "m" "{weights}"' in recipe, weights
        assert f"--no-print-directory {installed}\n" in recipe or not installed, weights
