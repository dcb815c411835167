"""What SageMaker's variables become, and what is said of a /opt/ml/model that is no model repository."""

from pathlib import Path

import pytest

from stack.container import MODEL, check_unpacked, compose_sagemaker
from stack.settings import StackError


def test_model_folder_of_sagemaker_is_read_once() -> None:
    assert compose_sagemaker({"REPOSITORY": MODEL}) == compose_sagemaker({}) == {
        "REPOSITORY": MODEL,
        "TRANSFORMER_SAGEMAKER": "true",
        "POLL_S": "inf",
        "SETTLE_S": "0",
        "HTTP_PORT": "8080",
    }  # fmt: skip


def test_bucket_in_its_place_is_polled() -> None:
    found = compose_sagemaker({"REPOSITORY": "s3://models/demo", "HTTP_PORT": "9"})
    assert found == {"REPOSITORY": "s3://models/demo", "TRANSFORMER_SAGEMAKER": "true", "HTTP_PORT": "8080"}


def test_users_interval_counts_more() -> None:
    assert compose_sagemaker({"POLL_S": "30", "SETTLE_S": ""}) | {"POLL_S": "30"} == compose_sagemaker({"POLL_S": "30"})


def test_ports_are_those_that_sagemaker_leaves() -> None:
    found = compose_sagemaker({"SAGEMAKER_BIND_TO_PORT": "9002", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9099"})
    names = ("HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")
    assert [found[name] for name in names] == ["9002", "9000", "9001", "9003", "9004", "9005"]


@pytest.mark.parametrize("allowed", ["9000", "9000-", "9000-9003", "a-b"])
def test_range_of_ports_that_cannot_be_used_is_reported(allowed: str) -> None:
    with pytest.raises(StackError, match=f"SAGEMAKER_SAFE_PORT_RANGE: got '{allowed}', expected"):
        compose_sagemaker({"SAGEMAKER_SAFE_PORT_RANGE": allowed})


@pytest.mark.parametrize("models", [["digits"], ["digits", "iris"]])
def test_repository_of_one_model_or_several_is_one(tmp_path: Path, models: list[str]) -> None:
    write(tmp_path, *(f"{model}/1/model.onnx" for model in models))
    check_unpacked(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "got nothing, expected <model>/<version>/model.onnx"),
        (["model_repository/digits/1/model.onnx"], "got the models below model_repository/, expected them here"),
        (["1/model.onnx", "config.pbtxt"], "got the folder of one model, expected it inside another one"),
        (["model.onnx", "code/inference.py"], "got code, model.onnx, expected <model>/<version>/model.onnx"),
    ],
)
def test_folder_that_is_no_repository_is_described(tmp_path: Path, files: list[str], said: str) -> None:
    write(tmp_path, *files)
    with pytest.raises(StackError) as raised:
        check_unpacked(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: {said}")
    assert "next: tar -C" in str(raised.value)


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no such folder, expected what ModelDataUrl points to"):
        check_unpacked(tmp_path / "missing")


def write(folder: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
