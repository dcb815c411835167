"""The bare model is the one that is served."""

from pathlib import Path

import pytest

from loadtest.compare.candidates import MODEL, mirror
from loadtest.compare.limit import bare_work

ROOT = Path(__file__).parents[2]
IMAGE = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()


@pytest.mark.parametrize(
    ("more", "backend", "expected"),
    [
        ("", "onnxruntime", "model.onnx"),
        ('default_model_filename: "model.int8.onnx"', "openvino", "model.int8.onnx"),
    ],
)
def test_file_and_properties_are_those_of_the_config(tmp_path: Path, more: str, backend: str, expected: str) -> None:
    folder = mirror("any", tmp_path) / "models" / MODEL
    for version in ("9", "10"):
        (folder / version).mkdir(parents=True)
        for name in ("model.int8.onnx", "model.onnx"):
            (folder / version / name).touch()
    (folder / "config.pbtxt").write_text(
        f"""
        backend: "{backend}" {more}
        input {{ name: "image" }}
        parameters {{ key: "metadata" value {{ string_value: "{{'imgsz': [640, 640], 'stride': 32}}" }} }}
        parameters {{ key: "HINT_BF16" value {{ string_value: "yes" }} }}
        parameters {{ key: "NUM_STREAMS" value {{ string_value: "2" }} }}
        """
    )
    work = bare_work("any", IMAGE, 1.0, cache=tmp_path)
    assert Path(work.model) == folder / "10" / expected
    assert (work.runtime, work.tensor, work.properties) == (backend, "image", {"HINT_BF16": "yes"})
