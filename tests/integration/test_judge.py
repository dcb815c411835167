"""`python -m predictor judge` applies the synchroniser's rules to a folder that Triton reads directly."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.repository_judgement import judge_repository
from tests.support.models import build_identity
from tests.support.versions import Build, seal, write

PYTHON_MODEL = "class TritonPythonModel:\n    pass\n"


def judge(folder: Path, *, profile: str = "fp32", plans: bool = False) -> dict[str, str | None]:
    return dict(judge_repository(folder, profile=profile, plans=plans))


def python_model(repository: Path) -> None:
    folder = repository / "code" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(PYTHON_MODEL)
    (folder.parent / "config.pbtxt").write_text('backend: "python"')


def hidden_model(repository: Path) -> None:
    python_model(repository)
    (repository / "code").rename(repository / ".code")


def library(repository: Path) -> None:
    (repository / "rows" / "libtriton_rows.so").write_bytes(b"ELF")


def linked_model(repository: Path) -> None:
    (repository / "other").symlink_to(repository / "rows")


def linked_file(repository: Path) -> None:
    path = repository / "rows" / "1" / "model.onnx"
    path.rename(path.with_name("other.onnx"))
    path.symlink_to("other.onnx")


def config_of_the_model(repository: Path) -> None:
    (repository / "rows" / "config.pbtxt").write_text('backend: "onnxruntime" model_operations { }')


def other_bytes(repository: Path) -> None:
    path = repository / "rows" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\x00\x00")


def missing_file(repository: Path) -> None:
    (repository / "rows" / "1" / "golden.npz").unlink()


def broken_golden(repository: Path) -> None:
    (repository / "rows" / "1" / "golden.npz").write_bytes(b"no archive")
    seal(repository / "rows" / "1")


def plan_without_config(repository: Path) -> None:
    folder = repository / "plan" / "1"
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(b"plan")
    (folder / "model.onnx").write_bytes(build_identity())


def plan_beside_a_config_that_names_no_backend(repository: Path) -> None:
    plan_without_config(repository)
    (repository / "plan" / "config.pbtxt").write_text("max_batch_size: 4")


def plan(repository: Path) -> None:
    plan_without_config(repository)
    (repository / "plan" / "config.pbtxt").write_text('backend: "tensorrt"')


WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "python": (python_model, "code/config.pbtxt", "backend: got 'python'"),
    "python-file": (python_model, "code/1/model.py", "is no file of a version"),
    "hidden": (hidden_model, ".code/1/model.py", "in a hidden folder, which Triton reads"),
    "library": (library, "rows/libtriton_rows.so", "expected config.pbtxt, labels"),
    "linked-model": (linked_model, "other/", "a link, which is not followed"),
    "linked-file": (linked_file, "rows/1/model.onnx", "a link: expected the file itself"),
    "config": (config_of_the_model, "rows/config.pbtxt", "model_operations: is not accepted"),
    "digest": (other_bytes, "rows/1", "model.onnx: sha256 got "),
    "missing": (missing_file, "rows/1", "golden.npz is missing, which its manifest.json lists"),
    "golden": (broken_golden, "rows/1", "golden.npz: cannot be read"),
    "plan": (plan, "plan/config.pbtxt", "a plan is code"),
    "plan-without-config": (plan_without_config, "plan/1", "a plan is code"),
    "plan-without-backend": (plan_beside_a_config_that_names_no_backend, "plan/1", "a plan is code"),
}


@pytest.mark.parametrize("name", WRONG)
def test_parts_that_must_not_be_loaded_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, "rows", Build(1))
    assert judge(tmp_path) == {"rows/1": None}
    spoil, path, reason = WRONG[name]
    spoil(tmp_path)
    verdicts = judge(tmp_path)
    assert reason in (verdicts[path] or "it is good")


def test_plans_are_valid_where_the_setting_allows_them(tmp_path: Path) -> None:
    plan(tmp_path)
    assert judge(tmp_path, plans=True) == {"plan/1": None}


def test_config_of_an_unselected_profile_is_not_judged(tmp_path: Path) -> None:
    write(tmp_path, "rows", Build(1))
    (tmp_path / "rows" / "configs").mkdir()
    (tmp_path / "rows" / "configs" / "tensorrt.pbtxt").write_text('backend: "tensorrt"')
    assert judge(tmp_path) == {"rows/1": None}
    assert "a plan is code" in (judge(tmp_path, profile="tensorrt")["rows/configs/tensorrt.pbtxt"] or "")


def test_command_exits_with_the_verdict(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write(repository, "rows", Build(1))

    def run() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "predictor", "judge", str(repository)]
        return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)

    good = run()
    assert (good.returncode, good.stdout, good.stderr) == (0, "good     'rows/1'\n", "")
    python_model(repository)
    bad = run()
    assert bad.returncode == 1
    assert "rejected 'code/config.pbtxt': config.pbtxt: backend: got 'python'" in bad.stdout
    assert "no Triton should read it" in bad.stderr
