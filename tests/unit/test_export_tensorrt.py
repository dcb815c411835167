"""Export with TensorRT, with stand-ins on PATH for NVIDIA's two programs, which need a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from export.__main__ import main
from export.errors import ExportError
from export.sources.tensorrt import PLANS, find_builder, read_engine
from export.writer.config import read_config
from export.writer.versions import read_complete
from registry.layout import find_file_problem
from tests.support.detectors import build_distributed, save
from tests.support.executables import TRTEXEC, put

ROOT = Path(__file__).parents[2]
ENGINE: dict[str, Any] = {
    "task": "detect",
    "names": {"0": "a", "1": "b", "2": "c"},
    "imgsz": [64, 96],
    "stride": 32,
    "args": {"dynamic": True, "half": False},
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with a GPU of compute capability 9.0 and a trtexec."""
    folder = tmp_path / "tools"
    put(folder, "nvidia-smi", "#!/bin/sh\necho 9.0\n")
    put(folder, "trtexec", TRTEXEC.format(log=tmp_path / "log", act='printf plan > "${argument#--saveEngine=}"'))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def export(tmp_path: Path, *options: str) -> Path:
    repository = tmp_path / "repository"
    source = save(tmp_path, build_distributed())
    assert main(["ultralytics", "tiny", str(source), *options, "--repository", str(repository)]) == 0
    return repository / "tiny"


def write_engine(path: Path, *, plan: bytes = b"plan", **changes: Any) -> Path:
    header = json.dumps(ENGINE | changes).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + plan)
    return path


@pytest.mark.usefixtures("tools")
def test_version_with_a_plan_is_the_next_one_with_all_files_of_the_other(tmp_path: Path) -> None:
    model = export(tmp_path)
    assert main(["tensorrt", str(model / "1")]) == 0
    first, second = read_complete(model / "1"), read_complete(model / "2")
    assert first is not None
    assert second is not None
    assert second["files"].keys() - first["files"].keys() == {"model.cc90.plan"}
    assert {name: second["files"][name] for name in first["files"]} == first["files"]
    assert (model / "2" / "model.cc90.plan").read_bytes() == b"plan"
    assert second["version"] == "2"
    profile = read_config(model / "2" / "tensorrt.pbtxt")
    assert profile.backend == "tensorrt"
    assert profile.cc_model_filenames["9.0"] == "model.cc90.plan"
    assert list(profile.input[0].dims) == [64, 96, 3]


@pytest.mark.usefixtures("tools")
def test_trtexec_is_requested_for_the_batches_of_the_profile_in_fp16_by_type(tmp_path: Path) -> None:
    export(tmp_path, "--format", "tensorrt")
    arguments = (tmp_path / "log").read_text().splitlines()
    assert arguments[2:] == [
        "--stronglyTyped",
        "--minShapes=image:1x64x96x3",
        "--optShapes=image:4x64x96x3",
        "--maxShapes=image:8x64x96x3",
        "--skipInference",
    ]
    graph = onnx.load(tmp_path / "log.onnx").graph
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [0, 64, 96, 3]
    assert onnx.TensorProto.FLOAT16 in {initializer.data_type for initializer in graph.initializer}


@pytest.mark.usefixtures("tools")
def test_export_with_a_plan_is_one_version(tmp_path: Path) -> None:
    model = export(tmp_path, "--format", "tensorrt")
    manifest = read_complete(model / "1")
    assert manifest is not None
    assert {"model.onnx", "model.cc90.plan", "tensorrt.pbtxt"} <= manifest["files"].keys()
    assert not (model / "2").exists()


@pytest.mark.parametrize(
    ("act", "message"),
    [("echo no such layer; exit 3", "(exit status 3); its last lines:\nno such layer\n"), (":", "but wrote nothing\n")],
)
def test_failed_build_publishes_nothing(
    tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str], act: str, message: str
) -> None:
    model = export(tmp_path)
    put(tools, "trtexec", TRTEXEC.format(log=tmp_path / "log", act=act))
    capsys.readouterr()
    assert main(["tensorrt", str(model / "1")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: TensorRT built no plan")
    assert error.endswith(message)
    assert sorted(path.name for path in model.iterdir()) == ["1", "config.pbtxt", "configs"]


def test_machine_without_a_gpu_is_rejected_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in (
        ["tensorrt", str(tmp_path / "nothing")],
        ["ultralytics", "tiny", "tiny.onnx", "--format", "tensorrt", "--repository", str(tmp_path / "repository")],
        ["ultralytics", "tiny", str(write_engine(tmp_path / "a.engine")), "--repository", str(tmp_path / "repository")],
    ):
        assert main(command) == 1
        assert "TensorRT builds for the GPU that it runs on: got none here" in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(("found", "words"), [("6.1", "6.1"), ("9.0\n8.6", "9.0, 8.6"), ("", "none")])
def test_gpu_that_is_not_known_or_mixed_is_rejected(tools: Path, found: str, words: str) -> None:
    put(tools, "nvidia-smi", f"#!/bin/sh\necho '{found}'\n")
    with pytest.raises(ExportError, match=f"got GPUs of compute capability {words}, expected one kind"):
        find_builder()


def test_machine_without_a_builder_is_rejected(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / "trtexec").unlink()
    monkeypatch.setattr("export.sources.tensorrt.TRTEXEC", tools / "trtexec")
    with pytest.raises(ExportError, match="got neither trtexec"):
        find_builder()


@pytest.mark.usefixtures("tools")
def test_version_that_is_not_complete_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = export(tmp_path)
    (model / "1" / "model.onnx").write_bytes(b"changed")
    assert main(["tensorrt", str(model / "1")]) == 1
    assert "got no complete version of a detector" in capsys.readouterr().err


def test_names_of_plans_are_legal() -> None:
    assert not [name for name in PLANS.values() if find_file_problem(name)]
    assert len(set(PLANS.values())) == len(PLANS)


@pytest.mark.usefixtures("tools")
def test_command_needs_only_the_standard_library_and_onnx(tmp_path: Path) -> None:
    model = export(tmp_path)
    # Only the dependencies of onnx can be imported.
    script = (
        "import sys\n"
        "allowed = sys.stdlib_module_names | {'environment', 'export', 'registry', 'onnx', 'numpy', 'google'}\n"
        "allowed |= {'ml_dtypes', 'typing_extensions'}\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in allowed:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "from export.__main__ import main\n"
        f"sys.exit(main(['tensorrt', {str(model / '1')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(model / "2")


@pytest.mark.usefixtures("tools")
def test_engine_of_ultralytics_is_served_without_its_header(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "best.engine", plan=b"the plan")
    assert main(["ultralytics", "tiny", str(path), "--repository", str(tmp_path / "repository")]) == 0
    folder = tmp_path / "repository" / "tiny" / "1"
    assert (folder / "model.cc90.plan").read_bytes() == b"the plan"
    manifest = read_complete(folder)
    assert manifest is not None
    assert manifest["files"].keys() == {"config.pbtxt", "model.cc90.plan", "parity.json"}
    config = read_config(folder / "config.pbtxt")
    assert (config.backend, config.input[0].name, list(config.output[0].dims)) == ("tensorrt", "images", [7, -1])
    assert dict(config.cc_model_filenames) == {"9.0": "model.cc90.plan"}
    assert "'names': {0: 'a', 1: 'b', 2: 'c'}" in config.parameters["metadata"].string_value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "segment"}, "task: got 'segment'"),
        ({"args": {"dynamic": False}}, "expected dynamic=True"),
        ({"args": {"dynamic": True, "nms": True}}, "got a graph with NMS inside"),
        ({"args": {"dynamic": True, "half": True}}, "half: got tensors in FP16"),
        ({"plan": b""}, "got no plan behind its metadata"),
        ({"args": "dynamic"}, "expected dynamic=True"),
        ({"head": ["Detect"]}, "which is unknown, expected one of Detect"),
    ],
)
def test_engine_that_cannot_be_served_is_rejected(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        read_engine(write_engine(tmp_path / "best.engine", **changes))


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": "abc"}, "names in its metadata: got 'abc'"),
        ({"names": {"0": "\ud800"}}, "expected a text by number"),
        ({"imgsz": "640"}, "imgsz in its metadata: got '640', expected one number or two"),
        ({"stride": None}, "stride in its metadata: got None, expected a whole number from 1 to 1024"),
        ({"channels": 1}, "channels: got 1, expected 3"),
    ],
)
def test_engine_whose_metadata_is_nonsense_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_engine(tmp_path / "best.engine", **changes)
    assert main(["ultralytics", "tiny", str(path), "--repository", str(tmp_path / "repository")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    "content", [b"", b"ftrt", b"\x04\x00\x00\x00[1]", b"\xff\xff\x00\x00{}", b"\x02\x00\x00\x00{}x"]
)
def test_file_that_is_no_engine_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.engine").write_bytes(content)
    with pytest.raises(ExportError, match=r"best.engine: got no "):
        read_engine(tmp_path / "best.engine")
