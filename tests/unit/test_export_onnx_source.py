"""ONNX files as people have them: any order of nodes, halves, names of ours, weights elsewhere, broken ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.__main__ import main
from export.errors import ExportError
from export.sources.choice import Choice
from export.sources.onnx_file import normalise, read_onnx
from export.sources.ultralytics import prepare
from export.writer.manifest import Interface
from tests.support.detectors import build_detector, draw, fix_size, pass_over, run, save, scale

INTERFACES: tuple[Interface, ...] = ("fused", "ultralytics")


def shuffled(model: ModelProto) -> ModelProto:
    """A graph with its nodes in another order, the first one last."""
    nodes = [*model.graph.node]
    nodes.reverse()
    nodes.sort(key=lambda node: "images" in node.input)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def halved(model: ModelProto, *, outside: bool) -> ModelProto:
    """In FP16, as a GPU exports it; else FP16 between two Casts, of which that of the input is the last node."""
    graph = model.graph
    for initializer in list(graph.initializer):
        array = numpy_helper.to_array(initializer)
        if array.dtype == np.float32:
            initializer.CopyFrom(numpy_helper.from_array(array.astype(np.float16), initializer.name))
    if outside:
        graph.input[0].type.tensor_type.elem_type = graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        return model
    for node in graph.node:
        node.input[:] = ["graph_input_cast0" if name == "images" else name for name in node.input]
        node.output[:] = ["graph_output_cast0" if name == "output0" else name for name in node.output]
    graph.node.append(helper.make_node("Cast", ["graph_output_cast0"], ["output0"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Cast", ["images"], ["graph_input_cast0"], to=TensorProto.FLOAT16))
    return model


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for initializer in graph.initializer:
        initializer.name = names.get(initializer.name, initializer.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def with_constants(model: ModelProto) -> ModelProto:
    """Every initialiser as a Constant node, at the end."""
    for initializer in model.graph.initializer:
        model.graph.node.append(helper.make_node("Constant", [], [initializer.name], value=initializer))
    del model.graph.initializer[:]
    return model


def with_inputs(model: ModelProto) -> ModelProto:
    """A graph of IR 3: every initialiser is listed as an input too, before the image."""
    inputs = [
        helper.make_tensor_value_info(value.name, value.data_type, list(value.dims))
        for value in model.graph.initializer
    ]
    image = model.graph.input[0]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(image)
    del model.graph.input[:]
    model.graph.input.extend([*inputs, kept])
    return model


def with_negative_dims(model: ModelProto) -> ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_value:
                dim.dim_value = -1
    return model


FORMS: dict[str, Callable[[], ModelProto]] = {
    "plain": build_detector,
    "shuffled": lambda: shuffled(build_detector()),
    "half": lambda: halved(build_detector(), outside=False),
    "half-outside": lambda: halved(build_detector(), outside=True),
    "ours": lambda: renamed(
        build_detector(),
        {"box": "boxes", "probability": "scores", "map": "image", "head": "fused/order", "logits": "k"},
    ),
    "classes": lambda: renamed(build_detector(), {"box": "classes", "weight": "fused/weight/0", "parts": "bins/axis"}),
    "other-ends": lambda: renamed(
        build_detector(), {"images": "x", "output0": "y", "map": "images", "head": "output0"}
    ),
    "constants": lambda: with_constants(build_detector()),
    "inputs": lambda: with_inputs(build_detector()),
    "negative": lambda: with_negative_dims(build_detector()),
}


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("form", FORMS)
def test_graph_form_that_onnx_runtime_loads_is_exported(tmp_path: Path, form: str, interface: Interface) -> None:
    path = save(tmp_path, FORMS[form]())
    version = prepare("tiny", str(path), choice=Choice(interface=interface), say=pass_over)
    assert version.graph is not None
    images = draw(1, 64, 96)
    # The outputs of the file itself in ONNX Runtime.
    file = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,) = (given for given in file.get_inputs() if given.shape[1:2] == [3])
    taken = scale(images).astype(np.float16 if image.type == "tensor(float16)" else np.float32)
    (head,) = file.run(None, {image.name: taken})
    expected = {"output0": head}
    if interface == "fused":
        boxes, scores = head[:, :4].transpose(0, 2, 1), head[:, 4:]
        expected = {"boxes": boxes, "scores": scores.max(axis=1), "classes": scores.argmax(axis=1)}
    got = run(version.graph, images if interface == "fused" else scale(images))
    assert got.keys() == expected.keys()
    # One is in FP16 there, and in FP32 here.
    rtol, atol = (2**-10, 2**-10) if form == "half-outside" else (0, 1e-4)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=rtol, atol=atol, err_msg=name)


def test_graph_that_is_normalised_already_stays_as_it_is() -> None:
    model = build_detector()
    assert normalise(model).graph.SerializeToString() == model.graph.SerializeToString()


def external(folder: Path) -> Path:
    """A detector whose weights lie in `weights.bin`."""
    path = save(folder)
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=100,
        convert_attribute=True,
    )
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert (tmp_path / "weights.bin").stat().st_size > 700
    assert read_onnx(path).graph.initializer[0].raw_data
    assert prepare("tiny", str(path), choice=Choice(), say=pass_over).parity["boxes_px"] < 1e-3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
            r"weights.bin: got \d+ bytes, exp",
        ),
        (lambda file: file.unlink(), r"weights.bin: the file is missing, expected \d+ bytes of weights of tiny.onnx"),
    ],
)
def test_external_data_that_is_cut_off_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    path = external(tmp_path)
    damage(tmp_path / "weights.bin")
    with pytest.raises(ExportError, match=message):
        read_onnx(path)
    assert main(["ultralytics", "tiny", str(path), "--repository", str(tmp_path / "r")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("location", "message"),
    [("../weights.bin", "expected a file beside it"), ("/etc/hostname", "expected a file beside it")],
)
def test_external_data_outside_its_folder_is_not_read(tmp_path: Path, location: str, message: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    path = external(folder)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=message):
        read_onnx(path)


@pytest.mark.parametrize("size", [2, 4])
def test_file_for_several_images_at_a_time_is_rejected_from_its_first_dimension(tmp_path: Path, size: int) -> None:
    model = build_detector()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    with pytest.raises(ExportError, match=f"export it again without batch={size}"):
        prepare("tiny", str(save(tmp_path, model)), choice=Choice(), say=pass_over)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize(
    ("height", "width", "expected"), [(64, None, [64, 96]), (None, 96, [64, 96]), (32, 128, [32, 128])]
)
def test_side_that_is_fixed_fixes_the_other(
    tmp_path: Path, height: int | None, width: int | None, expected: list[int], interface: Interface
) -> None:
    path = str(save(tmp_path, fix_size(build_detector(), height=height, width=width)))
    version = prepare("tiny", path, choice=Choice(interface=interface), say=pass_over)
    dims = list(version.config.input[0].dims)
    assert (dims[:2] if interface == "fused" else dims[1:]) == expected
    with pytest.raises(ExportError, match="export it again with dynamic=True"):
        prepare("tiny", path, choice=Choice(interface=interface, letterbox="rectangle"), say=pass_over)


@pytest.mark.parametrize("interface", INTERFACES)
def test_what_a_fixed_file_fixes_is_fixed_in_graph_and_config(tmp_path: Path, interface: Interface) -> None:
    path = str(save(tmp_path, fix_size(build_detector(batch=1), height=64, width=96)))
    version = prepare("tiny", path, choice=Choice(interface=interface), say=pass_over)
    assert version.graph is not None
    for tensor, declared in zip(version.config.output, version.graph.graph.output, strict=True):
        assert -1 not in tensor.dims
        assert [dim.dim_value for dim in declared.type.tensor_type.shape.dim][1:] == list(tensor.dims)
    assert list(version.config.output[0].dims) == ([64 * 96, 4] if interface == "fused" else [7, 64 * 96])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgsz": "'640'"}, "imgsz in its metadata: got '640'"),
        ({"imgsz": "[640, 640, 3]"}, "imgsz in its metadata"),
        ({"imgsz": "1e400"}, "imgsz in its metadata: got inf"),
        ({"stride": "None"}, "stride in its metadata: got None"),
        ({"stride": "[8, 16, 32]"}, "stride in its metadata"),
        ({"names": "{'a': 'b'}"}, "names in its metadata"),
        ({"names": "(" * 300}, "names in its metadata"),
        ({"names": "{-1: 'z', 0: 'a', 1: 'b', 2: 'c'}"}, "names in its metadata: .* each index from 0 and once"),
        ({"names": "{0: 'a', '0': 'b', 1: 'c', 2: 'd'}"}, "names in its metadata: .* each index from 0 and once"),
        ({"names": "{0: 'a', 1e999: 'b', 2: 'c'}"}, "names in its metadata: .* each index from 0 and once"),
        ({"names": "{0: 'a', 1000000000000: 'b', 2: 'c'}"}, "names in its metadata: .* each index from 0 and once"),
        ({"names": r"{0: '\ud800', 1: 'b', 2: 'c'}"}, "expected a text by number"),
        ({"imgsz": "100000"}, "imgsz in its metadata: got 100000, expected a whole number from 1 to 8192"),
        ({"stride": "5000"}, "stride in its metadata: got 5000, expected a whole number from 1 to 1024"),
        ({"task": None, "imgsz": None}, "YOLOv5's own repository"),
    ],
)
def test_metadata_that_is_nonsense_is_one_line(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(ExportError, match=message) as rejected:
        prepare("tiny", str(save(tmp_path, None, **changes)), choice=Choice(), say=pass_over)
    assert "\n" not in str(rejected.value)
