"""A loaded version is validated with its golden input, or else with a generated one."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from predictor.synchroniser.errors import TritonTimeout
from predictor.synchroniser.triton_client import TritonClient
from predictor.synchroniser.validation import validate
from registry.errors import VersionRejected
from tests.support.triton_stub import TritonStub, start_triton_stub
from tests.support.versions import Build, write

REJECTED = (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape")


@pytest.fixture
def stub(tmp_path: Path) -> TritonStub:
    return TritonStub(tmp_path)


@pytest.fixture
def triton(stub: TritonStub) -> Iterator[TritonClient]:
    with start_triton_stub(stub) as url:
        yield TritonClient(url, secret="", load_timeout_s=5)


@pytest.fixture
def golden(tmp_path: Path, triton: TritonClient) -> Path:
    """The golden input of the loaded model `rows`."""
    folder = write(tmp_path / "models", "rows", Build(1))
    triton.load("rows")
    return folder / "golden.npz"


def test_version_with_its_golden_outputs_is_valid(triton: TritonClient, golden: Path) -> None:
    assert validate(triton, "rows", golden=golden) is None


def test_golden_inputs_beyond_a_batch_are_inferred_one_batch_after_the_other(
    triton: TritonClient, stub: TritonStub, golden: Path
) -> None:
    stub.loaded["rows"][0].max_batch_size = 3  # of four rows
    assert validate(triton, "rows", golden=golden) is None
    assert stub.calls.count("ModelInfer rows") == 2


def test_version_with_other_outputs_is_rejected(triton: TritonClient, stub: TritonStub, golden: Path) -> None:
    stub.wrong.add(1)
    with pytest.raises(VersionRejected, match="golden input"):
        validate(triton, "rows", golden=golden)


def test_version_that_fails_with_its_golden_input_is_rejected(
    triton: TritonClient, stub: TritonStub, golden: Path
) -> None:
    stub.failures["ModelInfer rows"] = REJECTED
    with pytest.raises(VersionRejected, match="unexpected shape"):
        validate(triton, "rows", golden=golden)


def test_version_without_a_golden_input_is_valid_with_finite_outputs(
    triton: TritonClient, stub: TritonStub, golden: Path
) -> None:
    golden.unlink()
    assert validate(triton, "rows", golden=None) is None
    assert stub.calls[-1] == "ModelInfer rows"


@pytest.mark.parametrize("how", ["rejects the input", "returns NaN"])
def test_version_without_a_golden_input_is_not_verified_by_a_failure(
    triton: TritonClient, stub: TritonStub, golden: Path, how: str
) -> None:
    golden.unlink()
    if how == "returns NaN":
        stub.wrong.add(1)
    else:
        stub.failures["ModelInfer rows"] = REJECTED
    assert (validate(triton, "rows", golden=None) or "").startswith("not verified")


def test_requests_of_a_validation_share_one_limit(triton: TritonClient, golden: Path) -> None:
    with pytest.raises(TritonTimeout):
        validate(triton, "rows", golden=golden, limit_s=0)
