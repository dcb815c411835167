"""Files of Keras and TensorFlow by their own description, without TensorFlow."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.errors import ExportError
from export.sources.keras_file import check_file, has_scaling


def layer(name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": {"name": f"my_{name.lower()}"} | config}


def write(path: Path, *layers: dict[str, Any]) -> Path:
    """A `.keras` file as Keras 3 writes it, without weights."""
    model = {"module": "keras", "class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
    return path


PLAIN = layer("Conv2D", activation={"module": "builtins", "class_name": "function", "config": "relu"})


def test_layers_of_keras_itself_are_admitted(tmp_path: Path) -> None:
    assert check_file(write(tmp_path / "digits.keras", PLAIN), allowed=False) == "keras"
    # Keras 2 names no module: then Keras 3 looks among its own classes alone.
    assert check_file(write(tmp_path / "old.keras", layer("Dense", None)), allowed=False) == "keras"


@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper"])
def test_layer_with_code_needs_the_permission_of_the_user(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "code.keras", PLAIN, layer(name))
    with pytest.raises(ExportError, match=rf"code\.keras: layer 'my_{name.lower()}': {name} runs .*--allow-unpickling"):
        check_file(path, allowed=False)
    assert check_file(path, allowed=True) == "keras"


def test_code_deep_inside_a_layer_is_found(tmp_path: Path) -> None:
    inner = {"module": "builtins", "class_name": "__lambda__", "config": {"value": "4wEAAAA="}}
    path = write(tmp_path / "deep.keras", layer("TimeDistributed", layer=layer("Dense", activation=inner)))
    with pytest.raises(ExportError, match="__lambda__ runs Python's code"):
        check_file(path, allowed=False)


@pytest.mark.parametrize("module", ["os", "my.layers", "kerasx.layers"])
def test_class_of_another_package_is_rejected_whatever_is_permitted(module: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.keras", layer("system", module))
    for allowed in (False, True):
        with pytest.raises(
            ExportError, match=f"got the class 'system' of '{module}', whose code the file does not hold"
        ):
            check_file(path, allowed=allowed)


def test_registered_class_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.keras", layer("Mine", None) | {"registered_name": "my_package>Mine"})
    with pytest.raises(ExportError, match=r"of 'my_package>Mine'.*next: where its code is"):
        check_file(path, allowed=True)


def test_saved_model_needs_the_permission_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(
        ExportError, match=r"can read and write files: pass --allow-unpickling \(make: ALLOW_UNPICKLING"
    ):
        check_file(tmp_path, allowed=False)
    assert check_file(tmp_path, allowed=True) == "saved_model"


def test_layer_that_scales_is_seen_at_any_depth(tmp_path: Path) -> None:
    inner = {"class_name": "Sequential", "module": "keras", "config": {"layers": [layer("Rescaling", scale=1 / 255)]}}
    assert has_scaling(write(tmp_path / "in.keras", inner, PLAIN))
    assert not has_scaling(write(tmp_path / "out.keras", PLAIN))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.keras", b"PK\x03\x04", "got 4 bytes that are no model of Keras 3"),
        ("absent.keras", None, "the file is missing"),
        ("digits.weights", b"x", "got .weights, expected a .keras or .h5 file, or the folder of a SavedModel"),
    ],
)
def test_file_of_another_kind_is_rejected(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=says):
        check_file(tmp_path / name, allowed=True)


def test_folder_without_a_saved_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"got a folder without saved_model\.pb"):
        check_file(tmp_path, allowed=True)


def test_file_is_rejected_before_anything_is_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "code.keras", layer("Lambda")))
    assert main(["weights", path]) == 1
    assert "pass --allow-unpickling" in capsys.readouterr().err
    assert main(["weights", path, "--allow-unpickling"]) == 0
