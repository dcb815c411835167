"""A newest version that fails in an unforeseen way: the one before serves, and a new pod becomes ready."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.models import BATCHED, FLOAT_IO, build, build_identity, tensor
from tests.support.stack import Stack, start_stack, wait_until
from tests.support.versions import Build, seal, write

MIB = 2**20


def large_config(folder: Path) -> None:
    path = folder / "config.pbtxt"
    path.write_text(path.read_text() + "# nothing\n" * 200_000)
    seal(folder)


def large_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b" " * (MIB + 1))


def deep_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"[" * 500_000)


def encrypted_golden(folder: Path) -> None:
    path = folder / "golden.npz"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offsets = [entry.header_offset for entry in archive.infolist()]
    central = data.index(b"PK\x01\x02")
    while central >= 0:
        data[central + 8] |= 1  # general purpose flag, bit 0
        central = data.find(b"PK\x01\x02", central + 4)
    for offset in offsets:
        data[offset + 6] |= 1
    path.write_bytes(bytes(data))
    seal(folder)


def golden_of(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Golden arrays of another kind under the right names."""

    def spoil(folder: Path) -> None:
        path = folder / "golden.npz"
        with np.load(path) as arrays:
            changed = {name: change(array) for name, array in arrays.items()}
        np.savez(path, **changed)
        seal(folder)

    return spoil


def long_name(folder: Path) -> None:
    (folder / f"{'x' * 230}.txt").write_bytes(b"x")
    seal(folder)


def larger_than_the_disk(folder: Path) -> None:
    size = shutil.disk_usage(folder).free + 64 * 1024 * MIB
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(size)  # a hole
    manifest["files"]["model.onnx"]["size_bytes"] = size
    path.write_text(json.dumps(manifest))


# The reason reported for each; a version whose fault may pass is tried again later.
UNFORESEEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "large-config": (large_config, "refused", "config.pbtxt: got 2"),
    "large-manifest": (large_manifest, "refused", "manifest.json: got "),
    "deep-manifest": (deep_manifest, "refused", "manifest.json: no JSON"),
    "encrypted": (encrypted_golden, "refused", "golden.npz: cannot be read: File 'features.npy' is encrypted"),
    "complex": (
        golden_of(lambda array: array.astype(np.complex64)),
        "refused",
        "got complex64, shape [4, 4], expected",
    ),
    "text": (golden_of(lambda array: array.astype(str)), "refused", "expected numbers or bytes"),
    "scalar": (golden_of(lambda array: array.flat[0]), "refused", "shape [], expected"),
    "empty": (golden_of(lambda array: array[:0]), "refused", "got no item, expected one or more"),
    "long-name": (long_name, "refused", "manifest.json"),
    "huge": (larger_than_the_disk, "available", "disk full"),
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that starts with all of these versions in its repository, and an empty mirror."""
    folder = tmp_path_factory.mktemp("unforeseen")
    repository = folder / "repository"
    for name, (spoil, _, _) in UNFORESEEN.items():
        write(repository, name, Build(1))
        spoil(write(repository, name, Build(2)))
    # Once in every version's way: it had the name that golden.npz gave to a file of its own.
    write(repository, "warm", Build(1))
    (repository / "warm" / "warmup").mkdir()
    (repository / "warm" / "warmup" / "golden-0").write_bytes(b"x")
    with start_stack(repository, folder / "log", variables={"POLL_S": "0.5", "SETTLE_S": "0.5"}) as stack:
        yield stack


@pytest.mark.parametrize("name", UNFORESEEN)
def test_version_before_serves_and_the_reason_is_reported(fresh: Stack, name: str) -> None:
    _, state, reason = UNFORESEEN[name]

    def known() -> Any:
        return fresh.http.get("/status").raise_for_status().json()["models"][name]

    wait_until(lambda: known()["serving"] == ["1"], log=fresh.log)
    response = fresh.http.post(f"/predict/{name}", json=[1.0] * 4).raise_for_status().json()
    assert response["predictions"][0]["class"] == Build(1).names[Build(1).best]
    wait_until(lambda: known()["versions"]["2"]["state"] == state, log=fresh.log)
    reported = known()["versions"]["2"]["reason"]
    assert reason in reported
    assert reported


def test_file_in_a_model_s_folder_blocks_no_version(fresh: Stack) -> None:
    assert fresh.http.get("/status").raise_for_status().json()["models"]["warm"]["serving"] == ["1"]


def test_transient_failure_is_retried(fresh: Stack) -> None:
    def tried() -> int:
        return fresh.log.read_text(errors="replace").count("huge: version 2 failed ")

    before = tried()
    wait_until(lambda: tried() > before, log=fresh.log)
    error = fresh.http.get("/status").json()["models"]["huge"]["error"]
    assert "version 2: disk full" in error
    assert "tried again later" in error


def endless() -> bytes:
    """A model that never responds."""
    true = onnx.helper.make_node("Constant", [], ["true"], value=onnx.numpy_helper.from_array(np.array(True)))
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["go"], ["go_on"]),
            onnx.helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [
            onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("before", onnx.TensorProto.FLOAT, None),
        ],
        [
            onnx.helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("after", onnx.TensorProto.FLOAT, None),
        ],
    )
    loop = onnx.helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return build([true, loop], [tensor("x")], [tensor("y")])


def test_version_that_never_responds_blocks_no_other(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for number, content in ((1, build_identity()), (2, endless())):
        (repository / "loop" / str(number)).mkdir(parents=True)
        (repository / "loop" / str(number) / "model.onnx").write_bytes(content)
    (repository / "loop" / "config.pbtxt").write_text(BATCHED + FLOAT_IO)
    variables = {"POLL_S": "0.5", "SETTLE_S": "0", "PREDICTOR_LOAD_TIMEOUT_S": "10"}
    with start_stack(repository, tmp_path / "log", variables=variables) as stack:

        def known() -> Any:
            return stack.http.get("/status").raise_for_status().json()["models"]["loop"]

        assert known()["serving"] == ["1"]
        wait_until(lambda: known()["versions"]["2"]["state"] == "refused", log=stack.log)
        assert "3 times during its trial" in known()["versions"]["2"]["reason"]
        assert known()["serving"] == ["1"]
