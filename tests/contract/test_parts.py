"""The parts keep to their own places: which part imports which, which arguments and settings exist."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grpc
import grpc.aio
import pytest

from environment import __version__
from registry.judgement import limits
from transformer import SERVER_NAME, errors
from transformer import cli as arguments
from transformer.triton import model
from transformer.triton.status import translate

ROOT = Path(__file__).parents[2]
PARTS = ("export", "integrations", "loadtest", "predictor", "registry", "transformer", "worker")
# The registry judges, reads and writes model repositories, for every part that does one of these.
REPOSITORY_USERS = {"export", "loadtest", "predictor"}
# Modules that export may import from the serving parts: pure functions, so that it verifies models with the same code.
PURE = {
    "predictor.backends.errors",
    "predictor.backends.signature",
    "transformer.errors",
    "transformer.imaging",
    "transformer.tasks",
    "transformer.triton.model",
}
# Modules of export that the comparison with other servers may import: the check of weights, and the compared figure.
MEASURES = {"export.proof.average_precision", "export.sources.trusted_checkpoints"}
HEAVY = {"h5py", "keras", "tensorflow", "tf2onnx", "torch", "torchvision", "ultralytics"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from transformer import tasks` imports a part of it, not all.
            whole = node.module in PARTS
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {node.module}
    return names


def is_within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("part", PARTS)
def test_part_imports_no_other_part(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        others = {name for name in imports(path) if name.split(".")[0] in PARTS and name.split(".")[0] != part}
        allowed = {"export": PURE, "loadtest": MEASURES}.get(part, set())
        allowed |= {"registry"} if part in REPOSITORY_USERS else set()
        assert not {name for name in others if not is_within(name, allowed)}, path


@pytest.mark.parametrize("folder", [*PARTS, "environment"])
def test_serving_parts_do_not_import_the_stack_or_the_command(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"stack", "nereid", "tests"}, path


def test_environment_imports_no_part() -> None:
    for path in (ROOT / "environment").glob("*.py"):
        assert not {imported.split(".")[0] for imported in imports(path)} & set(PARTS)


def test_pure_modules_load_no_network_library() -> None:
    modules = ", ".join(sorted(name for name in PURE if name.startswith("transformer.")))
    talking = {"fastapi", "starlette", "uvicorn", "grpc", "tritonclient", "prometheus_client", "httpx"}
    script = f"import sys, {modules}; print(*sorted({talking} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not loaded.stdout.split()


def test_transformer_has_no_import_cycle() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "transformer").rglob("*.py")
    }
    arrows = {name: imports(path) & paths.keys() for name, path in paths.items()}
    while leaves := {name for name, imported in arrows.items() if not imported & arrows.keys()}:
        arrows = {name: imported for name, imported in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("part", ["predictor", "transformer", "worker"])
def test_serving_parts_do_not_import_torch(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & HEAVY, path


def test_transformer_and_registry_have_the_same_limits_of_metadata() -> None:
    for name in ("MAX_SIDE_PX", "MAX_CHANNELS", "MAX_STRIDE", "MAX_LABELS"):
        assert getattr(model, name) == getattr(limits, name), name


@pytest.mark.parametrize("part", ["environment", "export", "loadtest", "predictor", "transformer"])
def test_only_the_registry_talks_to_s3(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"boto3", "botocore"}, path


def test_no_test_file_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {name for name in imports(path) if name.startswith("tests.") and ".test_" in name}, path


def test_transformer_takes_every_argument_of_kserve() -> None:
    # In a process of its own: the SDK's protobufs and Triton's cannot be loaded together.
    script = (
        "from kserve.model_server import parser\n"
        "print('\\n'.join(f'{a.option_strings[0]} {a.nargs == 0:d}' for a in parser._actions))"
    )
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    ).stdout
    options = [line.split() for line in output.splitlines() if line.startswith("--")]
    assert len(options) > 15
    for option, is_flag in options:
        values = {"--predictor_host": "triton:8001"}.get(option, "1")
        # One of these is nothing without the other.
        pair = {"--ssl_certfile": ["--ssl_keyfile", "1"], "--ssl_keyfile": ["--ssl_certfile", "1"]}.get(option, [])
        argv = ["--predictor_host", "triton:8001", option, *([] if is_flag == "1" else [values]), *pair]
        assert arguments.parse(argv).predictor_host == "triton:8001"


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (SERVER_NAME, __version__) == (project["name"], project["version"])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("finder-predictor.default", "finder-predictor.default:8001"),
        ("10.0.0.1:9", "10.0.0.1:9"),
        ("[::1]:8001", "[::1]:8001"),
        ("[fd00::1]", "[fd00::1]:8001"),
        ("fd00::1", "[fd00::1]:8001"),
        ("::1", "[::1]:8001"),
    ],
)
def test_transformer_takes_the_host_as_the_controller_passes_it(given: str, read: str) -> None:
    assert arguments.parse(["--predictor_host", given]).predictor_host == read


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--predictor_host", "http://t:1"],
        ["--predictor_host", "t:1", "--what"],
        ["--predictor_host", "t:x"],
        ["--predictor_host", "t:"],
        ["--predictor_host", "a:1:2"],
        ["--predictor_host", "[t]:8001"],
        ["--predictor_host", "[::1"],
        ["--predictor_host", "[::1]:"],
        ["--predictor_host", "[::1]8001"],
        ["--predictor_host", "t:1", "--http_port", "99999"],
        ["--predictor_host", "t:1", "--grpc_port", "http"],
        ["--predictor_host", "t:1", "--timeout-keep-alive", "0"],
        ["--predictor_host", "t:1", "--timeout-keep-alive", "inf"],
        ["--predictor_host", "t:1", "--timeout-keep-alive", "long"],
    ],
)
def test_transformer_rejects_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        arguments.parse(argv)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_of_triton_is_translated(code: grpc.StatusCode) -> None:
    error = translate(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="detail"), "digits")
    assert isinstance(error, errors.ServingError)
    assert "digits" in str(error)


# Times that are shown or compared with those of files, and never decide what is served, or until when.
CALENDAR = {
    "predictor/synchroniser/uploads.py",
    "predictor/synchroniser/status.py",
    "predictor/synchroniser/repository_watch.py",
}


@pytest.mark.parametrize("part", ["predictor", "transformer"])
def test_calendar_time_is_read_only_in_listed_files(part: str) -> None:
    calendar = re.compile(r"\btime\.(time|time_ns|localtime|gmtime)\(|\bdatetime\.(now|utcnow|today|fromtimestamp)\(")
    using = {str(path.relative_to(ROOT)) for path in (ROOT / part).rglob("*.py") if calendar.search(path.read_text())}
    assert using == {path for path in CALENDAR if path.startswith(part)}
