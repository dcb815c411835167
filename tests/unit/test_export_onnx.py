"""`python -m export onnx`: any ONNX file, with its own tensors or as a classifier of images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from export.__main__ import main
from export.proof.calibration import Folder
from export.proof.top1 import compare
from export.sources.preprocessor import read_labels, read_preprocessor
from export.writer.config import read_config
from export.writer.versions import judge
from registry.golden import read_golden
from tests.support.classifiers import LABELS, SIDE, build_classifier, build_tensors
from transformer.tasks import describe, image_task

MEAN = ["--mean", "imagenet", "--std", "imagenet"]
NAMES = ["--labels", ",".join(LABELS)]


def export(folder: Path, model: ModelProto, *arguments: str, task: bool = True) -> int:
    onnx.save(model, folder / "model.onnx")
    own = ["--task", "classify"] if task else []
    return main(["onnx", "m", str(folder / "model.onnx"), *own, *arguments, "--repository", str(folder / "repository")])


def version(folder: Path) -> Path:
    return folder / "repository" / "m" / "1"


def config_of(folder: Path) -> Any:
    return read_config(version(folder) / "config.pbtxt")


def infer(folder: Path, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probabilities of the exported graph, as they are served."""
    model = describe(config_of(folder), version="1")
    task = image_task(model)
    tensor, plan = task.preprocess(image_hwc, model, size_wh=(image_hwc.shape[1], image_hwc.shape[0]))
    outputs = onnxruntime.InferenceSession(version(folder) / "model.onnx").run(None, {"image": tensor[None]})
    result = task.postprocess({"probabilities": outputs[0][0]}, model, plan=plan, options=task.options())
    probabilities: NDArray[np.float32] = result.probabilities
    return probabilities


IMAGE = np.random.default_rng(1).integers(0, 256, (90, 61, 3), np.uint8)


def test_exported_classifier_gives_what_the_file_gives_for_pillows_pixels(tmp_path: Path) -> None:
    model = build_classifier()
    assert export(tmp_path, model, *MEAN, *NAMES, "--size", "40", "--interpolation", "bicubic") == 0
    resized = Image.fromarray(IMAGE).resize((40, int(40 * 90 / 61)), Image.Resampling.BICUBIC)
    top = round((resized.height - SIDE) / 2)
    pixels = np.asarray(resized.crop((4, top, 36, top + SIDE)), np.float32) / 255
    numbers = (pixels - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"pixel_values": numbers.transpose(2, 0, 1)[None]})[0]
    shares = np.exp(logits - logits.max())
    np.testing.assert_allclose(infer(tmp_path, IMAGE), shares / shares.sum(), atol=1e-5)
    assert 0.01 < infer(tmp_path, IMAGE).max() < 0.99


def test_one_number_is_the_probability_of_the_second_of_two_classes(tmp_path: Path) -> None:
    assert export(tmp_path, build_classifier(columns=1), *MEAN, "--labels", "cat,dog") == 0
    got = infer(tmp_path, IMAGE)
    assert got.shape == (2,)
    np.testing.assert_allclose(got.sum(), 1, atol=1e-6)


def test_classifier_without_labels_has_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path, build_classifier(), *MEAN) == 0
    assert describe(config_of(tmp_path), version="1").names == {0: "0", 1: "1", 2: "2"}
    assert "got no --labels: its 3 classes have numbers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        ({}, NAMES, "--mean and --std: missing: no ONNX file says how pixels were normalised"),
        ({}, ["--mean", "0"], "--std: missing"),
        (
            {},
            [*MEAN, "--labels", "a,b"],
            "got 2, expected as many as an output has: result [1, 3]; one class more",
        ),
        ({}, [*MEAN, "--labels", "a,b,c,d"], "--labels: got 4, expected as many as an output has: result [1, 3]"),
        ({}, [*MEAN, "--labels", "a,,c"], "--labels: got an empty name for class 1"),
        ({}, [*MEAN, "--labels", "labels.txt"], "--labels: labels.txt: the file is missing"),
        ({}, ["--mean", "123", "--std", "58"], "--mean: got 123.0 with pixels of 0 to 1"),
        ({}, ["--mean", "0.4", "--std", "0.2", "--scale", "1"], "with pixels of 0 to 255 (--scale 1)"),
        ({}, ["--mean", "0.1", "0.2", "--std", "1"], "--mean: got 0.1 0.2, expected one number or 3"),
        ({}, ["--mean", "0", "--std", "0"], "--std: got 0.0, expected one number or 3, above 0"),
        ({}, ["--mean", "grey", "--std", "1"], "--mean: got grey, expected numbers, or imagenet"),
        ({}, [*MEAN, "--crop", "48"], "--crop: got 48x48, expected 32x32"),
        ({}, [*MEAN, "--size", "24"], "--size: got 24x24, expected at least 32x32"),
        ({}, [*MEAN, "--size", "40x48", "--fit", "shortest"], "--size 40x48: got two sides"),
        ({}, [*MEAN, "--interpolation", "cubic"], "--interpolation: got 'cubic', expected one of"),
        ({}, [*MEAN, "--channels", "grey"], "--channels grey: "),
        ({}, [*MEAN, "--layout", "nhwc"], "--layout nhwc: "),
        ({}, [*MEAN, "--output", "scores"], "--output scores: "),
        ({}, [*MEAN, "--softmax", "no"], "expected probabilities, from 0 to 1; next: --softmax yes"),
        ({}, [*MEAN, "--inputs", "x.npz"], "--inputs: is of a model with its own tensors"),
        ({}, [*MEAN, "--precision", "int8"], "--precision int8: got no --calibration"),
        ({"sides": ("h", "w")}, MEAN, "whose height and width are free"),
        ({"batch": 2}, MEAN, "batch: got a file for 2 images at a time"),
        ({"end": "sigmoid"}, MEAN, "that do not add up to 1: logits or a probability for each class by itself"),
        ({"datatype": "uint8"}, MEAN, "got them for an input of UINT8, which takes pixels of 0 to 255"),
        ({"further": True}, MEAN, "outputs: got"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    build: dict[str, Any], arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path, build_classifier(**build), *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "repository" / "m").exists()


def test_graph_that_returns_the_same_for_every_image_is_no_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_classifier()
    (layer,) = (each for each in model.graph.initializer if each.name == "layer")
    layer.CopyFrom(onnx.numpy_helper.from_array(np.zeros((64, 3), np.float32), "layer"))
    assert export(tmp_path, model, *MEAN, *NAMES, "--softmax", "yes") == 1
    assert "got the same for each of 6 images" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "semantic", "depth"])
def test_other_tasks_are_for_the_exporter_of_ultralytics(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path, build_classifier(), "--task", task, task=False) == 1
    assert "`export ultralytics` for a file that Ultralytics exported, or omit --task" in capsys.readouterr().err


def test_int8_is_calibrated_and_measured_by_the_best_class(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(12):
        folder = tmp_path / "photos" / LABELS[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{index}.png")
    options = ["--precision", "bf16", "int8", "--calibration", str(tmp_path / "photos")]
    assert len(Folder(tmp_path / "photos")) == 12
    assert export(tmp_path, build_classifier(), *MEAN, *NAMES, *options) == 0
    precisions = json.loads((version(tmp_path) / "manifest.json").read_text())["precisions"]
    assert {name: (cost["truth"], cost["pictures"]) for name, cost in precisions.items()} == {
        "bf16": ("labels", 12),
        "int8": ("labels", 12),
    }
    assert (version(tmp_path) / "model.int8.onnx").is_file()
    judge(version(tmp_path), where="m")


def test_precision_that_costs_too_much_is_rejected() -> None:
    cost = compare("int8", [0] * 99 + [1], [0] * 100, None)
    assert cost == {"top1": 0.99, "fp32": 1.0, "change": -0.01, "pictures": 100, "truth": "fp32"}
    with pytest.raises(Exception, match=r"bf16: top-1 against the labels: got 0.9900, expected at most 0.005 below"):
        compare("bf16", [0] * 99 + [1], [0] * 100, [0] * 100)


HALF: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
# The file, and options that are read from it.
PREPROCESSORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT": (
        {"do_resize": True, "size": {"height": 224, "width": 224}, "resample": 2, **HALF},
        {"fit": "stretch", "size": [224, 224], "interpolation": "bilinear", "mean": [0.5] * 3},
    ),
    "an old ViT": (
        {"do_resize": True, "size": 224, "resample": 3, **HALF},
        {"fit": "stretch", "size": [224, 224], "interpolation": "bicubic"},
    ),
    "ResNet": (
        {
            "do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True, "resample": 2,
            "crop_size": {"height": 224, "width": 224}, **HALF,
        },
        {"fit": "shortest", "size": 256, "crop": [224, 224]},
    ),
    "ConvNeXt": (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, **HALF},
        {"fit": "shortest", "size": 256, "crop": [224, 224]},
    ),
    "a large ConvNeXt": (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3, **HALF},
        {"fit": "stretch", "size": [384, 384]},
    ),
    "without normalisation": (
        {"size": 32, "do_normalize": False, "do_rescale": False, "resample": 0},
        {"mean": [0.0], "std": [1.0], "scale": 1.0, "interpolation": "nearest"},
    ),
    "timm": (
        {
            "architecture": "x", "label_names": ["a", "b"],
            "pretrained_cfg": {
                "input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3,
                "std": [0.5] * 3,
            },
        },
        {"fit": "shortest", "size": 248, "crop": [224, 224], "interpolation": "bicubic", "labels": ["a", "b"]},
    ),
    "timm, squashed": (
        {"input_size": [3, 192, 256], "crop_pct": 1.0, "crop_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
        {"fit": "stretch", "size": [192, 256], "crop": [192, 256]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_preprocessor_of_other_libraries_is_read(name: str, tmp_path: Path) -> None:
    document, expected = PREPROCESSORS[name]
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(document))
    options = read_preprocessor(path)
    assert {key: options.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected preprocessor_config.json of transformers or config.json of timm"),
        ("[1]", "got a list, expected an object"),
        ("{", "got no JSON"),
        ('{"size": 224, "do_normalize": true}', "expected size, resample, image_mean and image_std"),
        ('{"size": 224, "do_pad": true, "image_mean": [0], "image_std": [1]}', "which is not served"),
        ('{"pretrained_cfg": {"input_size": [3, 8, 9], "mean": [0], "std": [1]}}', "crop_mode: got 'center' for 8x9"),
        ('{"pretrained_cfg": {}}', "expected input_size, mean and std"),
    ],
)
def test_preprocessor_that_is_none_is_rejected(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text)
    with pytest.raises(Exception, match="preprocessor_config") as raised:
        read_preprocessor(path)
    assert message in str(raised.value)


def test_preprocessor_and_labels_beside_it_are_enough(tmp_path: Path) -> None:
    document = PREPROCESSORS["ViT"][0] | {"size": {"height": 40, "width": 40}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "2": "cow", "1": "dog"}}))
    assert export(tmp_path, build_classifier(), "--preprocessor", str(tmp_path / "preprocessor_config.json")) == 0
    model = describe(config_of(tmp_path), version="1")
    assert (model.names, model.facts["resize"]["size"]) == (dict(enumerate(LABELS)), [40, 40])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "cat\ndog\r\ncow\n\n"),
        ("labels.json", '["cat", "dog", "cow"]'),
        ("labels.json", '{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "cow"]}'),
        ("config.json", '{"id2label": {"0": "cat", "1": "dog", "2": "cow"}}'),
    ],
)
def test_labels_are_read_from_files_of_many_kinds(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_labels(str(tmp_path / name)) == list(LABELS)


def test_inputs_of_a_user_verify_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.ones((7, 3), np.float32))
    assert export(tmp_path, build_tensors("none runs"), "--inputs", str(tmp_path / "inputs.npz"), task=False) == 0
    golden = read_golden(version(tmp_path) / "golden.npz")
    assert golden["y"].shape == (3, 7)
    np.savez(tmp_path / "inputs.npz", z=np.ones(3, np.float32))
    assert export(tmp_path, build_tensors("none runs"), "--inputs", str(tmp_path / "inputs.npz"), task=False) == 1
    assert "got ['z'], expected ['x']" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--labels", "a"], ["--mean", "0"], ["--crop", "32"]])
def test_options_of_a_classifier_want_its_task(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path, build_classifier(), *options, task=False) == 1
    assert "is of a classifier, expected --task classify" in capsys.readouterr().err


def test_batches_may_be_switched_off(tmp_path: Path) -> None:
    assert export(tmp_path, build_classifier(), "--max-batch-size", "0", task=False) == 0
    config = config_of(tmp_path)
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [-1, 3, SIDE, SIDE])
