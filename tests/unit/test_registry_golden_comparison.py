"""Golden outputs compared number by number, and detection by detection."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry import config as configs
from registry.errors import VersionRejected
from registry.golden import read_golden
from registry.golden_outputs import check_golden_outputs
from registry.layout import find_file_problem
from registry.warmup import add_warmup


def detections(rows: list[tuple[float, float, int]]) -> dict[str, NDArray[Any]]:
    return {
        "boxes": np.array([[[x, 10, 8, 8] for x, _, _ in rows]], np.float32),
        "scores": np.array([[score for _, score, _ in rows]], np.float32),
        "classes": np.array([[label for _, _, label in rows]], np.int32),
    }


GOLDEN = [(10.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)]


@pytest.mark.parametrize(
    ("got", "fits"),
    [
        (GOLDEN, True),
        ([(50.0, 0.6, 2), (10.2, 0.91, 1), (20.0, 0.01, 7)], True),  # another order, and chance at the end
        ([(10.0, 0.9, 2), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(10.0, 0.7, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(30.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(10.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.99, 3)], False),
    ],
)
def test_detections_are_found_again_whatever_their_order(got: list[tuple[float, float, int]], fits: bool) -> None:
    if fits:
        check_golden_outputs(detections(got), detections(GOLDEN), ModelConfig(backend="onnxruntime"))
        return
    with pytest.raises(VersionRejected, match="golden input"):
        check_golden_outputs(detections(got), detections(GOLDEN), ModelConfig(backend="onnxruntime"))


@pytest.mark.parametrize(("difference", "fits"), [(0.0, True), (0.01, True), (0.1, False), (np.nan, False)])
def test_numbers_may_differ_a_little(difference: float, fits: bool) -> None:
    want = {"y": np.array([[0.5, 0.25]], np.float32)}
    got = {"y": want["y"] + np.float32(difference)}
    if fits:
        check_golden_outputs(got, want, ModelConfig())
        return
    with pytest.raises(VersionRejected, match=r"output 'y'\[0, [01]\]"):
        check_golden_outputs(got, want, ModelConfig())


def test_golden_input_becomes_the_warm_up(tmp_path: Path) -> None:
    config = configs.parse(
        b'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 }'
        b'output { name: "y" data_type: TYPE_FP32 dims: 2 }',
        where="config.pbtxt",
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "golden.npz", x=x, y=x)
    add_warmup(config, read_golden(tmp_path / "golden.npz"), tmp_path)
    (sample,) = config.model_warmup
    assert (sample.batch_size, list(sample.inputs["x"].dims)) == (3, [2])
    assert (tmp_path / "warmup" / sample.inputs["x"].input_data_file).read_bytes() == x.tobytes()
    assert "is no file" in str(find_file_problem(sample.inputs["x"].input_data_file)), (
        "no file of a bucket can be in its way"
    )
