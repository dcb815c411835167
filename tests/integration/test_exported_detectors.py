"""Exported detectors load in the real embedded Triton, in every profile, with fixed and free dims of the file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http
from onnx import ModelProto

from export.sources.choice import Choice
from export.sources.ultralytics import prepare
from export.writer.config import read_config, to_text
from export.writer.manifest import Interface
from export.writer.repository import Version, write_version
from registry.golden import read_golden, split_golden
from registry.golden_outputs import check_golden_outputs
from tests.support.detectors import build_detector, build_finished, fix_size, pass_over, save
from tests.support.triton import Triton, start_triton

FILES: dict[str, Callable[[], ModelProto]] = {
    "free": build_detector,
    "fixed": lambda: fix_size(build_detector(batch=1), height=64, width=96),
    "one-side": lambda: fix_size(build_detector(), width=96),
    "finished": lambda: build_finished(rows=300),
    "finished-fixed": lambda: fix_size(build_finished(rows=300), height=64, width=96),
}
INTERFACES: tuple[Interface, ...] = ("fused", "ultralytics")
NAMES = [f"{name}-{interface}{profile}" for name in FILES for interface in INTERFACES for profile in ("", "-fast")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    for name, build in FILES.items():
        path = str(save(folder, build()))
        for interface in INTERFACES:
            version = prepare(f"{name}-{interface}", path, choice=Choice(interface=interface), say=pass_over)
            write_version(folder / "repository", version)
            publish_profile(folder / "repository", version, "fast")
    return folder / "repository"


def publish_profile(repository: Path, version: Version, profile: str) -> None:
    """Publish a profile of a version as a model of its own."""
    source = repository / version.config.name
    folder = repository / f"{version.config.name}-{profile}"
    (folder / "1").mkdir(parents=True)
    for file in ("model.onnx", "golden.npz"):
        (folder / "1" / file).symlink_to(source / "1" / file)
    config = read_config(source / "1" / f"{profile}.pbtxt")
    config.name = folder.name
    (folder / "config.pbtxt").write_text(to_text(config), encoding="utf-8")


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with start_triton(repository, tmp_path_factory.mktemp("triton") / "log") as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_exported_detector_loads_and_gives_its_golden_outputs(triton: Triton, repository: Path, name: str) -> None:
    url = f"127.0.0.1:{triton.http_port}"
    assert httpx.get(f"http://{url}/v2/models/{name}/ready").is_success, triton.log.read_text()[-3000:]
    config = read_config(repository / name / "config.pbtxt")
    inputs, expected = split_golden(read_golden(repository / name / "1" / "golden.npz"), config)
    ((tensor, image),) = inputs.items()
    datatype = "UINT8" if image.dtype == np.uint8 else "FP32"
    request = tritonclient.http.InferInput(tensor, list(image.shape), datatype)
    request.set_data_from_numpy(image)
    with tritonclient.http.InferenceServerClient(url) as client:
        response = client.infer(name, [request])
    got = {output: response.as_numpy(output) for output in expected}
    if name.endswith("-fast"):  # in BF16 where the CPU has it
        check_golden_outputs(got, expected, config)
        return
    for output, array in expected.items():
        np.testing.assert_allclose(got[output], array, rtol=1e-4, atol=1e-4, err_msg=output)
