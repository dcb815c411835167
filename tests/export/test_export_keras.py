"""Models of Keras and TensorFlow, from the file to what is served, against Keras' own `predict`."""

import importlib.util
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from export.__main__ import main
from tests.support.stack import Stack, start_stack
from tests.support.tolerances import SCORE

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed: make .venv/.keras"
    ),
    pytest.mark.filterwarnings("ignore"),  # of TensorFlow and Keras, while models are made
]

_SIDE, _CLASSES, _IMAGES = 28, 10, 30
Floats = NDArray[np.float32]


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's digits in the form of MNIST: `(N, 28, 28, 1)`, 0 to 255."""
    loaded = load_digits()
    images = [cv2.resize((image * 15.9).astype(np.uint8), (_SIDE, _SIDE)) for image in loaded.images]
    return np.stack(images)[..., None], loaded.target


class Tutorial:
    """The models of a tutorial, in the files that it writes."""

    def __init__(self, folder: Path) -> None:
        import keras  # noqa: PLC0415 - where it is installed

        keras.utils.set_random_seed(1)
        layers = keras.layers
        self.folder = folder
        self.images, labels = digits()
        body = [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
        ]
        start = [keras.Input((_SIDE, _SIDE, 1)), layers.Rescaling(1 / 255)]
        self.softmax = keras.Sequential([*start, *body, layers.Dense(_CLASSES, activation="softmax")])
        self.softmax.compile("adam", "sparse_categorical_crossentropy")
        self.softmax.fit(self.images, labels, epochs=2, batch_size=32, verbose=0)
        self.softmax.save(folder / "digits.keras")
        self.softmax.save(folder / "digits.h5")
        self.softmax.export(folder / "digits", verbose=False)
        # Scaled outside of the model, and without a softmax, as TensorFlow's own first tutorial has it.
        self.logits = keras.Sequential([keras.Input((_SIDE, _SIDE)), layers.Flatten(), layers.Dense(_CLASSES)])
        self.logits.save(folder / "logits.keras")
        self.even = keras.Sequential([*start, layers.Flatten(), layers.Dense(1, activation="sigmoid")])
        self.even.save(folder / "even.keras")

    def predict(self, images: NDArray[np.uint8]) -> Floats:
        return np.asarray(self.softmax.predict(images.astype(np.float32), verbose=0))


EXPORTS: Mapping[str, list[str]] = {
    "keras": ["digits.keras", "--fit", "stretch"],
    "h5": ["digits.h5", "--fit", "stretch", "--task", "classify"],
    "saved-model": ["digits", "--fit", "stretch", "--scale", "1", "--allow-unpickling"],
    "logits": ["logits.keras", "--task", "classify", "--fit", "stretch", "--scale", "1/255"],
    "even": ["even.keras", "--fit", "stretch", "--labels", "odd,even"],
    "tensors": ["digits.keras", "--task", "none"],
}


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    return Tutorial(tmp_path_factory.mktemp("tutorial"))


@pytest.fixture(scope="module")
def repository(tutorial: Tutorial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each model, exported."""
    folder = tmp_path_factory.mktemp("keras")
    for name, (file, *options) in EXPORTS.items():
        assert main(["keras", name, str(tutorial.folder / file), *options, "--repository", str(folder)]) == 0, name
    return folder


@pytest.fixture(scope="module")
def served(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start_stack(repository, tmp_path_factory.mktemp("keras-log") / "log") as running:
        yield running


def encode(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "png")
    return buffer.getvalue()


def predict(stack: Stack, model: str, image: NDArray[np.uint8], classes: int = _CLASSES) -> Floats:
    """Probabilities that `/predict` returns, in the order of the classes."""
    response = stack.http.post(
        f"/predict/{model}", params={"top_k": classes}, content=encode(image), headers={"Content-Type": "image/png"}
    )
    assert response.status_code == 200, response.text
    return in_order(response)


def in_order(response: httpx.Response) -> Floats:
    predictions = sorted(response.json()["predictions"], key=lambda each: each["class_id"])
    return np.array([each["confidence"] for each in predictions], np.float32)


@pytest.mark.parametrize("model", ["keras", "h5", "saved-model"])
def test_digits_are_served_as_keras_predicts_them(model: str, tutorial: Tutorial, served: Stack) -> None:
    images = tutorial.images[:: len(tutorial.images) // _IMAGES][:_IMAGES]
    got = np.stack([predict(served, model, image) for image in images])
    np.testing.assert_allclose(got, tutorial.predict(images), atol=SCORE, rtol=0)


def test_batch_is_served_as_keras_predicts_it(tutorial: Tutorial, served: Stack) -> None:
    images = tutorial.images[:20]
    files = [("image", (f"{index}.png", encode(image), "image/png")) for index, image in enumerate(images)]
    response = served.http.post("/predict/keras", files=files)
    assert response.status_code == 200, response.text
    tops = [int(each["top"]) for each in response.json()]
    assert tops == tutorial.predict(images).argmax(axis=1).tolist()


def test_logits_become_probabilities(tutorial: Tutorial, served: Stack) -> None:
    import keras  # noqa: PLC0415

    image = tutorial.images[3]
    logits = tutorial.logits.predict(image[None, ..., 0].astype(np.float32) / 255, verbose=0)
    expected = np.asarray(keras.ops.softmax(logits))[0]
    np.testing.assert_allclose(predict(served, "logits", image), expected, atol=SCORE, rtol=0)


def test_one_sigmoid_is_two_classes(tutorial: Tutorial, served: Stack) -> None:
    image = tutorial.images[4]
    (even,) = tutorial.even.predict(image[None].astype(np.float32), verbose=0)[0]
    np.testing.assert_allclose(predict(served, "even", image, 2), [1 - even, even], atol=SCORE, rtol=0)


def test_model_without_a_task_is_served_with_its_own_tensors(tutorial: Tutorial, served: Stack) -> None:
    images = tutorial.images[:3].astype(np.float32)
    tensor = {"name": "input_layer", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    metadata = served.http.get("/v2/models/tensors").json()
    tensor["name"] = metadata["inputs"][0]["name"]
    response = served.http.post("/v2/models/tensors/infer", json={"inputs": [tensor]})
    assert response.status_code == 200, response.text
    got = np.reshape(response.json()["outputs"][0]["data"], (3, _CLASSES))
    np.testing.assert_allclose(got, tutorial.predict(tutorial.images[:3]), atol=SCORE, rtol=0)


def test_parity_names_what_was_compared(repository: Path) -> None:
    found = {name: json.loads((repository / name / "1" / "parity.json").read_text()) for name in EXPORTS}
    assert found["keras"]["compared_with"] == "Keras' predict"
    assert found["saved-model"]["compared_with"] == "the SavedModel's serving_default"
    assert all(parity["outputs"] < SCORE for parity in found.values())


def build(*layers: Any) -> Any:
    import keras  # noqa: PLC0415

    return keras.Sequential([keras.Input((_SIDE, _SIDE, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(3)])


def test_layers_that_the_converter_alone_does_not_take_are_exported(tmp_path: Path) -> None:
    import keras  # noqa: PLC0415

    layers = keras.layers
    normalise = layers.Normalization(mean=0.1, variance=0.3)  # its numbers are no variables
    model = build(normalise, layers.Conv2D(4, 3, activation="gelu"), layers.Conv2D(4, 3, groups=4))
    model.save(tmp_path / "odd.keras")
    arguments = ["keras", "odd", str(tmp_path / "odd.keras"), "--fit", "shortest", "--repository", str(tmp_path)]
    assert main(arguments) == 0


def test_lambda_layer_needs_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras  # noqa: PLC0415

    build(keras.layers.Lambda(lambda images: images / 2, output_shape=(_SIDE, _SIDE, 1))).save(tmp_path / "code.keras")
    arguments = ["keras", "code", str(tmp_path / "code.keras"), "--task", "none", "--repository", str(tmp_path / "to")]
    assert main(arguments) == 1
    assert "Lambda runs Python's code that the file holds: pass --allow-unpickling" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    assert main([*arguments, "--allow-unpickling"]) == 0


def test_weights_without_a_model_are_rejected(
    tutorial: Tutorial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tutorial.softmax.save_weights(tmp_path / "digits.weights.h5")
    assert main(["keras", "digits", str(tmp_path / "digits.weights.h5"), "--repository", str(tmp_path)]) == 1
    assert "got weights without their model" in capsys.readouterr().err


def test_damaged_files_are_reported_by_what_could_not_load_them(
    tutorial: Tutorial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, damaged = tutorial.folder / "digits.keras", tmp_path / "damaged.keras"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[: len(content) // 2] if name.endswith(".h5") else content)
    folder = tmp_path / "damaged"
    shutil.copytree(tutorial.folder / "digits", folder)
    for path in folder.glob("variables/variables.data*"):
        path.write_bytes(path.read_bytes()[:100])
    for file, options, says in (
        (damaged, [], "Keras"),
        (folder, ["--allow-unpickling"], "TensorFlow"),
    ):
        arguments = ["keras", "digits", str(file), "--fit", "stretch", *options, "--repository", str(tmp_path / "to")]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert f"{says} " in error
        assert " does not load it: " in error
        assert not (tmp_path / "to").exists()


def test_failure_of_the_converter_is_reported_in_its_words(
    tutorial: Tutorial, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError

    monkeypatch.setattr("tf2onnx.convert.from_graph_def", fail)
    arguments = ["keras", "digits", str(tutorial.folder / "digits.keras"), "--fit", "stretch"]
    assert main([*arguments, "--repository", str(tmp_path / "to")]) == 1
    assert "digits.keras: tf2onnx does not convert it: KeyError" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("file", "options", "says"),
    [
        (
            "digits.keras",
            ["--fit", "stretch", "--labels", "a,b"],
            "--labels: got 2, expected as many as an output has: output_0 [1, 10]",
        ),
        ("digits.keras", [], "--fit: missing: no model says how images came to its size"),
        ("digits.keras", ["--fit", "stretch", "--crop", "32"], "--crop: got 32x32, expected 28x28"),
        ("digits.keras", ["--signature", "serve"], "--signature: got"),
        ("logits.keras", ["--task", "classify", "--fit", "stretch"], "--scale: missing: no layer is known"),
        (
            "digits",
            ["--allow-unpickling", "--signature", "x"],
            "--signature: got x, expected one of serve, serv",
        ),
        ("digits", ["--fit", "stretch"], "which can read and write files: pass --allow-unpickling"),
    ],
)
def test_wrong_options_say_what_is_expected(
    file: str, options: list[str], says: str, tutorial: Tutorial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["keras", "digits", str(tutorial.folder / file), *options, "--repository", str(tmp_path / "to")]
    assert main(arguments) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
