"""Versions of tests/support/versions.py behave as documented, in the real embedded Triton and in the whole stack."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import grpc

from export.writer.versions import read_complete
from loadtest.generator.load import Load, Plan
from tests.support.responded import versions
from tests.support.stack import PATIENCE_S, ROOT, start_stack
from tests.support.triton import start_triton
from tests.support.versions import SPOILS, Build, external_data, strip, write

BUILD = Build(7)
GOOD = {"good": lambda _: None, "external-data": external_data, "stripped": strip}

# Spoils that Triton rejects, with a part of its reason; where it has read no config it lists the model without one.
REJECTED = {
    "broken-config": "",
    "corrupt": "Protobuf parsing failed",
    "corrupt-sealed": "Protobuf parsing failed",
    "empty-model-sealed": "No graph was found",
    "execution-environment": "evil.tar.gz",
    "external-data-outside": "escapes",
    "file-outside": "unable to find",
    "missing-external-data": "External data path does not exist",
    "missing-model": "unable to find",
    "missing-model-sealed": "unable to find",
    "new-opset": "opset 23",
    "op-library": "evil.so",  # it tried
    "other-name": "",
    "other-outputs": "[-1, 4]",
    "truncated": "Protobuf parsing failed",
    "truncated-sealed": "Protobuf parsing failed",
}
# Spoils that it serves, with the first row of their outputs: only manifest.json or golden.npz reveal them.
SERVED: dict[str, Any] = {
    "nan": [np.nan] * 3,
    "different-scores": np.roll(BUILD.scores, 1),
    "slightly-different-scores": BUILD.scores - np.float32(0.05),
    "python-model": [0.125] * 3,  # it ran
    **dict.fromkeys(
        ("broken-manifest", "missing-file", "other-number", "pickled-golden", "python-beside", "wrong-digest"),
        BUILD.scores,
    ),
}
# Spoils after which the manifest does not fit the files.
TORN = {"broken-manifest", "corrupt", "missing-file", "missing-model", "truncated", "wrong-digest"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for each spoil and each good form."""
    made = tmp_path_factory.mktemp("versions") / "repository"
    for name, change in {**SPOILS, **GOOD}.items():
        folder = write(made, name, BUILD)
        change(folder)
        if (folder / "config.pbtxt").exists():
            shutil.copy(folder / "config.pbtxt", made / name)
    return made


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[grpc.InferenceServerClient]:
    with (
        start_triton(repository, repository.parent / "log") as triton,
        grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc_port}") as made,
    ):
        yield made


def send(client: grpc.InferenceServerClient, name: str) -> NDArray[np.float32]:
    rows = grpc.InferInput("features", [2, 4], "FP32")
    rows.set_data_from_numpy(np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32))
    return np.asarray(client.infer(name, [rows]).as_numpy("probabilities"))


def test_every_spoil_has_an_expected_effect() -> None:
    assert SPOILS.keys() == REJECTED.keys() | SERVED.keys()


@pytest.mark.parametrize("name", REJECTED)
def test_triton_rejects(client: grpc.InferenceServerClient, name: str) -> None:
    (entry,) = [model for model in client.get_model_repository_index().models if model.name == name]
    assert entry.state == ("UNAVAILABLE" if REJECTED[name] else "")
    assert REJECTED[name] in entry.reason


@pytest.mark.parametrize("name", SERVED)
def test_triton_serves_versions_whose_error_it_cannot_see(client: grpc.InferenceServerClient, name: str) -> None:
    np.testing.assert_allclose(send(client, name), [SERVED[name]] * 2, atol=1e-6)


@pytest.mark.parametrize("name", GOOD)
def test_triton_serves_valid_versions(client: grpc.InferenceServerClient, name: str) -> None:
    np.testing.assert_allclose(send(client, name), [BUILD.scores] * 2, atol=1e-6)


@pytest.mark.parametrize("name", [*SPOILS, "good", "external-data"])
def test_manifest_fits_the_files_where_only_they_are_wrong(repository: Path, name: str) -> None:
    assert (read_complete(repository / name / "1") is None) == (name in TORN)


def test_number_and_size_can_be_chosen(tmp_path: Path) -> None:
    assert write(tmp_path, "tiny", Build(1), number=5, padding_bytes=100_000).stat()
    assert (tmp_path / "tiny" / "5" / "model.onnx").stat().st_size > 100_000
    write(tmp_path, "tiny", Build(2), number=6)
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"5", "6", "config.pbtxt"}
    with pytest.raises(AssertionError, match="expected 3"):
        write(tmp_path, "tiny", Build(3), number=3)


def test_outputs_of_a_build_fit_it_and_no_other(tmp_path: Path) -> None:
    builds = {
        "rows": Build(1),
        "more-rows": Build(2, classes=5, features=6),
        "fused": Build(3, "detect"),
        "plain": Build(4, "detect", "ultralytics", classes=4),
    }
    for name, build in builds.items():
        write(tmp_path / "repository", name, build, padding_bytes=10_000)
    with start_stack(tmp_path / "repository", tmp_path / "log") as stack:
        for name, build in builds.items():
            row = [1.0] * build.features if build.task == "tabular" else []
            image = "" if row else str(ROOT / "loadtest" / "pictures" / "digits.jpg")
            addresses = (f"127.0.0.1:{stack.http_port}", f"127.0.0.1:{stack.grpc_port}")
            with Load(Plan(*addresses, name, row=row, image_path=image)) as load:
                assert load.wait_for(
                    lambda response: response.connection == 3 and response.kind == "grpc", seconds=PATIENCE_S
                )
                result = load.stop()
            assert not result.failures
            assert versions(result) == ["1"]
            assert {response.kind for response in result.responses} == {"predict", "v2", "grpc"}
            for other in builds.values():
                assert {other.fits(response) for response in result.responses} == {other is build}


def test_load_counts_failures_and_ends_though_the_server_hangs(tmp_path: Path) -> None:
    write(tmp_path / "repository", "rows", BUILD)
    with start_stack(tmp_path / "repository", tmp_path / "log") as stack:
        addresses = (f"127.0.0.1:{stack.http_port}", f"127.0.0.1:{stack.grpc_port}")
        with Load(Plan(*addresses, "rows", row=[1.0] * 4, timeout_s=3)) as load:
            assert load.wait_for_version("1", seconds=PATIENCE_S)
            transformer = stack.part("transformer")
            suspended = time.monotonic()
            transformer.suspend()
            try:
                assert load.wait_for(lambda response: bool(response.error), seconds=PATIENCE_S)
                result = load.stop()
            finally:
                transformer.resume()
    assert {"", "DEADLINE_EXCEEDED"} >= {response.status for response in result.failures}
    assert result.failures[0].seconds < 10
    assert result.between(0, suspended - 3).failures == []
