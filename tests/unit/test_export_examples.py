"""Which of the models that come with the repository are ready already."""

import json
from pathlib import Path

import pytest

from export.examples import shipped as examples
from export.examples.shipped import EXAMPLES, Example, find_ready
from export.writer.manifest import list_files

(DETECTOR,) = (example for example in EXAMPLES if example.name == "digit-finder")


def _write(repository: Path, version: int, example: Example, *, precisions: tuple[str, ...]) -> Path:
    folder = repository / example.name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    manifest = {
        "source": {"sha256": example.source.sha256},
        "precisions": {precision: {} for precision in precisions},
        "files": list_files(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("present", "wanted", "is_ready"),
    [
        ((), ("fp32",), True),
        ((), ("fp32", "bf16", "int8"), False),
        (("bf16",), ("int8",), False),
        (("bf16", "int8"), ("fp32",), True),
        (("bf16", "int8"), examples.PRECISIONS, True),
    ],
)
def test_version_without_a_requested_precision_is_made_again(
    tmp_path: Path, present: tuple[str, ...], wanted: tuple[str, ...], is_ready: bool
) -> None:
    folder = _write(tmp_path, 1, DETECTOR, precisions=present)
    assert find_ready(DETECTOR, tmp_path, precisions=wanted) == (folder if is_ready else None)


def test_example_with_a_single_precision_is_ready_for_any_request(tmp_path: Path) -> None:
    (digits,) = (example for example in EXAMPLES if example.name == "digits")
    folder = _write(tmp_path, 1, digits, precisions=())
    assert find_ready(digits, tmp_path) == folder


def test_the_newest_version_counts(tmp_path: Path) -> None:
    _write(tmp_path, 1, DETECTOR, precisions=("bf16", "int8"))
    _write(tmp_path, 2, DETECTOR, precisions=())
    assert find_ready(DETECTOR, tmp_path) is None
