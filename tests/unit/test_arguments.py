"""Command lines: what is misspelt is reported with the nearest name; paths of the project from every folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from environment.arguments import Parser
from environment.project import ROOT, from_root, in_project
from predictor.settings import Settings as PredictorSettings
from stack.__main__ import read_options
from stack.parts import paths_from_root
from stack.settings import StackSettings, iterate_options


def parser() -> Parser:
    made = Parser(prog="nereid", description="d")
    command = made.add_subparsers(required=True).add_parser("publish")
    command.add_argument("model")
    command.add_argument("--repository", required=True)
    command.add_argument("--version")
    return made


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("publish m --repositry r", "unknown option: --repositry; did you mean --repository?"),
        ("publish m --repositry=r", "unknown option: --repositry; did you mean --repository?"),
        ("publish m --repository r --xyz", "unknown option: --xyz\n"),
        ("publish m n --repository r", "unknown argument: n"),
        ("publish m", "required: --repository"),
    ],
)
def test_unknown_option_is_reported_by_its_command(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words.split())
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "nereid publish: error: " in printed
    assert says in printed


@pytest.mark.parametrize("words", ["publish m --repository r", "publish --repo r m", "publish --repository=r -- --m"])
def test_valid_arguments_are_parsed(words: str) -> None:
    assert parser().parse_args(words.split()).repository == "r"


def test_every_variable_of_serve_is_an_option_and_no_secret_is() -> None:
    given = {name: "1" for name, _, is_flag in iterate_options() if not is_flag}
    words = [word for name in given for word in (f"--{name.replace('_', '-')}", "1")]
    assert read_options([*words, "--verbose"]) == {name.upper(): "1" for name in [*given, "verbose"]}
    without = StackSettings.model_fields.keys() - given.keys() - {"verbose"}
    assert without == {
        "transformer_host", "predictor_address", "predictor_sync_address", "nereid_api_key", "stop_triton_s"
    }  # fmt: skip
    assert read_options([]) == {}


def test_defaults_are_the_projects_and_paths_of_a_user_are_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REPOSITORY", "MIRROR", "HTTP_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    at_home = StackSettings()
    assert (at_home.repository, at_home.predictor_repository) == ("model_repository", "model_repository")
    assert at_home.log_folder == Path("output/serve-8080")
    mirror = at_home.mirror_folder.absolute()
    monkeypatch.chdir(tmp_path)
    away = StackSettings()
    assert Path(away.repository) == Path(away.predictor_repository) == ROOT / "model_repository"
    assert away.mirror_folder == mirror, "two stacks of one repository find each other's lock"
    assert away.log_folder == ROOT / "output/serve-8080"
    theirs = StackSettings(repository="models", mirror=Path("mirror"))
    assert theirs.folder == Path("models")
    assert Path(theirs.predictor_repository) == tmp_path / "models"
    assert StackSettings(repository="s3://models/demo").predictor_repository == "s3://models/demo"


def test_paths_that_a_user_sets_for_the_parts_are_found_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"TRANSFORMER_API_KEYS_FILE": "keys.txt", "PREDICTOR_VENV": "/venv", "TRANSFORMER_THREADS": "2"}
    monkeypatch.chdir(tmp_path)
    found = paths_from_root(environ)
    assert found == {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt"), "PREDICTOR_VENV": "/venv"}
    monkeypatch.chdir(ROOT)
    assert paths_from_root(environ)["TRANSFORMER_API_KEYS_FILE"] == "keys.txt"


def test_paths_are_shown_as_the_user_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert in_project("output") == Path("output")
    monkeypatch.chdir(ROOT.parent)
    assert in_project("output") == Path(ROOT.name, "output")
    monkeypatch.chdir(tmp_path)
    assert in_project("output") == ROOT / "output"
    assert from_root(Path("a")) == tmp_path / "a"


@pytest.mark.parametrize(("value", "is_verbose"), [("1", True), ("0", False), ("debug", False), ("", False)])
def test_verbose_of_a_shell_counts_where_it_is_1(value: str, is_verbose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBOSE", value)
    assert StackSettings().verbose == is_verbose


@pytest.mark.parametrize(
    ("variables", "words", "says"),
    [
        ({}, ["--signed-by", ""], "--signed-by: got None: a value, or no such variable: it is set to nothing"),
        ({"SIGNED_BY": ""}, [], "SIGNED_BY: got None: a value"),
        ({"PREDICTOR_SIGNED_BY": ""}, [], "PREDICTOR_SIGNED_BY: set to nothing"),
        ({"PREDICTOR_SIGNED_BY": ""}, ["--triton-url", "localhost:1"], "PREDICTOR_SIGNED_BY: set to nothing"),
        ({"PREDICTOR_SIGNED_BY": "a"}, ["--triton-url", "localhost:1"], "PREDICTOR_SIGNED_BY: with TRITON_URL"),
        ({"SIGNED_BY": "a"}, ["--triton-url", "localhost:1"], "SIGNED_BY: with TRITON_URL"),
        ({"PREDICTOR_SIGNED_BY": "/nowhere"}, [], "PREDICTOR_SIGNED_BY: /nowhere: no such file"),
    ],
)
def test_policy_is_not_off_by_accident(variables: dict[str, str], words: list[str], says: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if "SIGNED_BY" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "stack", "--repository", str(tmp_path), *words],
        cwd=ROOT,
        env=environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert f"error: {says}" in done.stderr


def test_predictor_rejects_a_policy_that_is_set_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_SIGNED_BY", "")
    with pytest.raises(ValidationError, match="set to nothing"):
        PredictorSettings()


def test_make_gives_no_policy_that_is_not_set() -> None:
    environ = {name: value for name, value in os.environ.items() if name not in {"SIGNED_BY", "MAKEFLAGS"}}
    print_it = ["make", "-s", "-f", "-", "show"]
    text = 'include Makefile\nshow:\n\t@echo "got $${SIGNED_BY-none}"\n'
    for given, expected in (([], "none"), (["SIGNED_BY="], ""), (["SIGNED_BY=a"], "a")):
        done = subprocess.run(
            [*print_it, *given], cwd=ROOT, env=environ, input=text, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"got {expected}\n"
