"""Versions of models as folders: valid ones, whose outputs identify their build, and spoiled ones."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.proof.session import Session
from export.writer.config import describe_detector, describe_table, read_config, to_text
from export.writer.manifest import Interface, Source, digest
from export.writer.repository import Version, write_version
from loadtest.generator.responses import Response

_MODEL, _CONFIG, _GOLDEN, _MANIFEST = "model.onnx", "config.pbtxt", "golden.npz", "manifest.json"
_SIDE = 32  # pixels of the detectors' input
_BOX_CXCYWH = (16.0, 16.0, 8.0, 8.0)


@dataclass(frozen=True)
class Build:
    """A tiny model with a constant output, different for each build.

    The number is in the names of the classes, and determines the best class and its confidence: labels of one build on
    outputs of another are detected.

    Attributes:
        number: of the build.
        task: rows or images.
        interface: of a detector.
        classes: number of classes.
        features: columns of a row.
    """

    number: int
    task: Literal["tabular", "detect"] = "tabular"
    interface: Interface = "fused"
    classes: int = 3
    features: int = 4

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(f"build-{self.number}-{index}" for index in range(self.classes))

    @property
    def best(self) -> int:
        """Index of the class in the output."""
        return self.number % self.classes

    @property
    def confidence(self) -> float:
        """Confidence of that class."""
        return 0.55 + self.number % 400 / 1000

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores of all classes; they sum to 1."""
        scores = np.full(self.classes, (1 - self.confidence) / max(self.classes - 1, 1), np.float32)
        scores[self.best] = self.confidence
        return scores

    def fits(self, response: Response) -> bool:
        """Whether a response is of this build: its output with its own labels."""
        labels = self.names if self.task == "tabular" else (self.names[self.best],)
        return (
            (response.labels, response.top) == (labels, self.names[self.best])
            and abs(response.confidence - self.confidence) < 1e-4
        )  # fmt: skip


def write(repository: Path, name: str, build: Build, *, number: int | None = None, padding_bytes: int = 0) -> Path:
    """Write a build as export writes a version.

    Args:
        repository: local; created where it is missing.
        name: of the model.
        build: to write.
        number: of the version; by default the next one.
        padding_bytes: noise in the model file, for a slow download.

    Returns:
        The version's folder.
    """
    graph, golden = (_table if build.task == "tabular" else _detector)(build)
    if padding_bytes:
        noise = np.random.default_rng(build.number).integers(0, 256, padding_bytes, np.uint8)
        graph.graph.initializer.append(numpy_helper.from_array(noise, "padding"))
    config = (_describe_table if build.task == "tabular" else _describe_detector)(name, build)
    version = Version(
        graph=graph,
        config=config,
        task=build.task,
        interface=build.interface if build.task == "detect" else None,
        source=Source(f"build-{build.number}", "0" * 64),
        parity={"source": f"build-{build.number}"},
        golden={**golden, **Session(graph, name=name).infer(*golden.values())},
    )
    if number is None:
        return write_version(repository, version)
    folder = repository / name / str(number)
    before = folder.with_name(str(number - 1))  # write_version() uses the number after the highest
    made = not before.exists()
    before.mkdir(parents=True, exist_ok=True)
    try:
        written = write_version(repository, version)
    finally:
        if made:
            before.rmdir()
    assert written == folder, f"{written.name}: expected {number}, the highest of the model"
    return written


def reseal(folder: Path) -> None:
    """Have the manifest of a version list files that were added or changed."""
    manifest = json.loads((folder / _MANIFEST).read_bytes())
    for path in (*folder.glob("*.pbtxt"), *folder.glob("*.onnx")):
        manifest["files"][path.name] = {"sha256": digest(path), "size_bytes": path.stat().st_size}
    (folder / _MANIFEST).write_text(json.dumps(manifest))


def _describe_table(name: str, build: Build) -> Any:
    columns = [f"column-{index}" for index in range(build.features)]
    metadata = {"task": "tabular", "features": columns, "names": dict(enumerate(build.names))}
    inputs = {"features": ("FP32", build.features)}
    return describe_table(name, inputs=inputs, output=("probabilities", build.classes), metadata=metadata)


def _describe_detector(name: str, build: Build) -> Any:
    metadata = {
        "task": "detect",
        "imgsz": [_SIDE, _SIDE],
        "stride": _SIDE,
        "channels": 3,
        "names": dict(enumerate(build.names)),
        "args": {"dynamic": False},
    }
    return describe_detector(
        name, interface=build.interface, size_hw=(_SIDE, _SIDE), classes=build.classes, metadata=metadata
    )


def _table(build: Build) -> tuple[ModelProto, dict[str, NDArray[Any]]]:
    """`features` times zero plus the scores, for every row."""
    rows = np.random.default_rng(0).normal(size=(4, build.features)).astype(np.float32)
    graph = _model(
        [helper.make_node("Gemm", ["features", "weights", "scores"], ["probabilities"])],
        ("features", TensorProto.FLOAT, ["batch", build.features]),
        [("probabilities", TensorProto.FLOAT, ["batch", build.classes])],
        {"weights": np.zeros((build.features, build.classes), np.float32), "scores": build.scores},
    )
    return graph, {"features": rows}


def _detector(build: Build) -> tuple[ModelProto, dict[str, NDArray[Any]]]:
    """One box in the middle of every image. Compress hides the number of boxes from shape inference."""
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "flat": np.array([-1, 1, 1], np.int64),
        "nothing": np.zeros(1, np.float32),
        "kept": np.array([True]),
    }
    zero = [  # (batch, 1, 1)
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Reshape", ["mean", "flat"], ["means"]),
        helper.make_node("Mul", ["means", "nothing"], ["zero"]),
    ]
    if build.interface == "ultralytics":
        column = np.array([*_BOX_CXCYWH, *build.scores], np.float32).reshape(1, -1, 1)
        graph = _model(
            [
                helper.make_node("Identity", ["images"], ["pixels"]),
                *zero,
                helper.make_node("Add", ["zero", "column"], ["head"]),
                helper.make_node("Compress", ["head", "kept"], ["output0"], axis=2),
            ],
            ("images", TensorProto.FLOAT, ["batch", 3, _SIDE, _SIDE]),
            [("output0", TensorProto.FLOAT, ["batch", 4 + build.classes, "anchors"])],
            constants | {"column": column},
        )
        return graph, {"images": rng.uniform(size=(1, 3, _SIDE, _SIDE)).astype(np.float32)}
    row: dict[str, NDArray[Any]] = {
        "box": np.array(_BOX_CXCYWH, np.float32).reshape(1, 1, 4),
        "score": np.full((1, 1), build.confidence, np.float32),
        "class": np.full((1, 1), build.best, np.int32),
        "last": np.array([2], np.int64),
    }
    graph = _model(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            *zero,
            helper.make_node("Squeeze", ["zero", "last"], ["none"]),
            helper.make_node("Cast", ["none"], ["no"], to=TensorProto.INT32),
            helper.make_node("Add", ["zero", "box"], ["box-of-each"]),
            helper.make_node("Add", ["none", "score"], ["score-of-each"]),
            helper.make_node("Add", ["no", "class"], ["class-of-each"]),
            helper.make_node("Compress", ["box-of-each", "kept"], ["boxes"], axis=1),
            helper.make_node("Compress", ["score-of-each", "kept"], ["scores"], axis=1),
            helper.make_node("Compress", ["class-of-each", "kept"], ["classes"], axis=1),
        ],
        ("image", TensorProto.UINT8, ["batch", _SIDE, _SIDE, 3]),
        [
            ("boxes", TensorProto.FLOAT, ["batch", "candidates", 4]),
            ("scores", TensorProto.FLOAT, ["batch", "candidates"]),
            ("classes", TensorProto.INT32, ["batch", "candidates"]),
        ],
        constants | row,
    )
    return graph, {"image": rng.integers(0, 256, (1, _SIDE, _SIDE, 3), np.uint8)}


_Tensor = tuple[str, int, Sequence[int | str]]


def _model(
    nodes: Sequence[Any], source: _Tensor, outputs: Sequence[_Tensor], constants: dict[str, NDArray[Any]]
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "build",
        [helper.make_tensor_value_info(*source)],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# Faults of versions ------------------------------------------------------------------------------------


def seal(folder: Path) -> None:
    """Make the manifest match the present files."""
    path = folder / _MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {
        file.name: {"sha256": digest(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.iterdir())
        if file.name != _MANIFEST
    }
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def corrupt(folder: Path) -> None:
    """Other bytes of the same length; the digest does not match."""
    path = folder / _MODEL
    path.write_bytes(bytes(byte ^ 0xA5 for byte in path.read_bytes()))


def corrupt_sealed(folder: Path) -> None:
    """Other bytes, with their digest."""
    corrupt(folder)
    seal(folder)


def truncated(folder: Path) -> None:
    """Half of the file; size and digest do not match."""
    path = folder / _MODEL
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_sealed(folder: Path) -> None:
    """Half of the file, with its digest."""
    truncated(folder)
    seal(folder)


def wrong_digest(folder: Path) -> None:
    """A manifest with the digest of another model file; the file is valid."""
    path = folder / _MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"][_MODEL]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")


def broken_manifest(folder: Path) -> None:
    """A manifest that is not JSON."""
    (folder / _MANIFEST).write_text("{", encoding="utf-8")


def other_number(folder: Path) -> None:
    """A manifest of another version: a folder copied in S3."""
    path = folder / _MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"version": "4711"}), encoding="utf-8")


def missing_file(folder: Path) -> None:
    """golden.npz is missing, and in the manifest."""
    (folder / _GOLDEN).unlink()


def missing_model(folder: Path) -> None:
    """model.onnx is missing, and in the manifest."""
    (folder / _MODEL).unlink()


def missing_model_sealed(folder: Path) -> None:
    """model.onnx is missing, and not in the manifest."""
    missing_model(folder)
    seal(folder)


def empty_model_sealed(folder: Path) -> None:
    """A model.onnx of 0 bytes, with its digest."""
    (folder / _MODEL).write_bytes(b"")
    seal(folder)


def other_outputs(folder: Path) -> None:
    """config.pbtxt has one class more than the graph."""

    def change(config: Any) -> None:
        config.output[-1].dims[0] += 1

    _edit_config(folder, change)


def nan(folder: Path) -> None:
    """Outputs NaN."""
    _edit_scores(folder, lambda scores: scores * np.float32("nan"))


def different_scores(folder: Path) -> None:
    """Outputs differ from golden.npz."""
    _edit_scores(folder, lambda scores: np.roll(scores, 1))


def slightly_different_scores(folder: Path) -> None:
    """Outputs differ by 0.05 from golden.npz; the best class is the same."""
    _edit_scores(folder, lambda scores: scores - np.float32(0.05))


def broken_config(folder: Path) -> None:
    """config.pbtxt is invalid."""
    (folder / _CONFIG).write_text('name: "tiny"\nmax_batch_size: { {\n', encoding="utf-8")
    seal(folder)


def other_name(folder: Path) -> None:
    """config.pbtxt has the name of another model."""
    _edit_config(folder, lambda config: setattr(config, "name", "another"))


def new_opset(folder: Path) -> None:
    """Uses an opset that the oldest supported Triton lacks."""

    def change(model: ModelProto) -> None:
        model.opset_import[0].version = 23

    _edit_model(folder, change)


def pickled_golden(folder: Path) -> None:
    """golden.npz has a pickle, which would run code."""
    np.savez(folder / _GOLDEN, features=np.array([_Mischief()], object), allow_pickle=True)
    seal(folder)


def op_library(folder: Path) -> None:
    """config.pbtxt makes Triton load a shared library."""
    _edit_config(folder, lambda config: config.model_operations.op_library_filename.append("/tmp/evil.so"))  # noqa: S108


def execution_environment(folder: Path) -> None:
    """config.pbtxt makes Triton unpack and run another Python."""

    def change(config: Any) -> None:
        config.parameters["EXECUTION_ENV_PATH"].string_value = "/tmp/evil.tar.gz"  # noqa: S108

    _edit_config(folder, change)


def python_model(folder: Path) -> None:
    """A model.py, with the backend that runs it."""
    _add_python(folder)
    _edit_config(folder, lambda config: setattr(config, "backend", "python"))


def python_beside(folder: Path) -> None:
    """A model.py beside a valid model: nothing runs it, as the config has another backend."""
    _add_python(folder)
    seal(folder)


def file_outside(folder: Path) -> None:
    """config.pbtxt has a model file outside the folder."""
    _edit_config(folder, lambda config: setattr(config, "default_model_filename", "../../../outside.onnx"))


def external_data_outside(folder: Path) -> None:
    """The graph reads its weights from a file outside the folder."""
    external_data(folder)

    def change(model: ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../../../outside.data"

    _edit_model(folder, change)


def missing_external_data(folder: Path) -> None:
    """The graph reads `model.data`, which is missing in folder and manifest."""
    external_data(folder)
    (folder / "model.data").unlink()
    seal(folder)


SPOILS: dict[str, Callable[[Path], None]] = {
    spoil.__name__.replace("_", "-"): spoil
    for spoil in (
        corrupt,
        corrupt_sealed,
        truncated,
        truncated_sealed,
        wrong_digest,
        broken_manifest,
        other_number,
        missing_file,
        missing_model,
        missing_model_sealed,
        empty_model_sealed,
        other_outputs,
        nan,
        different_scores,
        slightly_different_scores,
        broken_config,
        other_name,
        new_opset,
        pickled_golden,
        op_library,
        execution_environment,
        python_model,
        python_beside,
        file_outside,
        external_data_outside,
        missing_external_data,
    )
}
"""Functions that spoil the folder of a valid table version, by name."""

# Keys that belong to no model of a repository, each with the reason; `{model}` is the name of a valid model. Tests
# choose their content.
ODD_KEYS = {
    "{model}/0/model.onnx": "versions begin at 1",
    "{model}/01/model.onnx": "a leading zero",
    "{model}/2_old/model.onnx": "not a number",
    "{model}/-1/model.onnx": "not a number",
    "{model}/٣/model.onnx": "a digit, not of ASCII",
    "{model}/99999999999999999999/model.onnx": "more than Triton's 64 bits",
    "{model}/../escaped/config.pbtxt": "climbs",
    "{model}/7/../../../escaped": "climbs out of the repository",
    "{model}/7/..": "a file named ..",
    "{model}//config.pbtxt": "an empty segment",
    "/{model}/7/model.onnx": "absolute",
    "{model}/7/..\\escaped": "climbs elsewhere",
    "{model}/7/\x1b[2J": "clears the terminal that shows the log (moto takes no line break)",
    "{model}/7/.hidden": "hidden",
    "{model}/notes.md": "not a file of a model",
    "{model}/libevil.so": "not a file of a model",
    "a b/1/model.onnx": "two words to a shell",
    "$(reboot)/1/model.onnx": "a command to a shell",
    "a~b/1/model.onnx": "a reserved name",
    "loose.txt": "belongs to no model",
}


def external_data(folder: Path) -> None:
    """Move the weights into `model.data`; the version stays valid."""
    model = onnx.load(folder / _MODEL)
    onnx.save(model, folder / _MODEL, save_as_external_data=True, location="model.data", size_threshold=0)
    seal(folder)


def strip(folder: Path) -> None:
    """Keep only model.onnx, like a plain upload; the version stays valid."""
    for path in folder.iterdir():
        if path.name != _MODEL:
            path.unlink()


class _Mischief:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def _add_python(folder: Path) -> None:
    (folder / "model.py").write_text(_PYTHON, encoding="utf-8")


# The output of this model differs from that of every build.
_PYTHON = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, "features").as_numpy() for request in requests]
        scores = [np.full((len(row), 3), 0.125, np.float32) for row in rows]
        return [pb.InferenceResponse([pb.Tensor("probabilities", each)]) for each in scores]
"""


def _edit_model(folder: Path, change: Callable[[ModelProto], None]) -> None:
    model = onnx.load(folder / _MODEL, load_external_data=False)
    change(model)
    (folder / _MODEL).write_bytes(model.SerializeToString())
    seal(folder)


def _edit_config(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / _CONFIG
    config = read_config(path)
    change(config)
    path.write_text(to_text(config), encoding="utf-8")
    seal(folder)


def _edit_scores(folder: Path, change: Callable[..., NDArray[np.float32]]) -> None:
    def edit(model: ModelProto) -> None:
        (scores,) = [tensor for tensor in model.graph.initializer if tensor.name == "scores"]
        changed = change(numpy_helper.to_array(scores))
        scores.CopyFrom(numpy_helper.from_array(np.asarray(changed, np.float32), "scores"))

    _edit_model(folder, edit)
