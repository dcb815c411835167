"""Profiles: what differs from config.pbtxt, and how the model's own follow its newest version."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from export.writer.config import describe_detector, read_config
from export.writer.manifest import Interface
from export.writer.profiles import PROFILES, describe_profiles
from export.writer.repository import write_version
from tests.support.exported import METADATA, version, with_profiles
from transformer.tasks import describe


def config(interface: Interface = "fused") -> Any:
    return describe_detector("tiny", interface=interface, size_hw=None, classes=2, metadata=METADATA)


def profiles(interface: Interface = "fused", *, int8: bool = True) -> dict[str, Any]:
    return describe_profiles(config(interface), digest="0123456789abcdef", int8=int8)


def test_no_config_says_how_many_threads() -> None:
    for described in (config(), *profiles().values()):
        assert not [key for key in described.parameters if "thread" in key.lower()]


@pytest.mark.parametrize(("name", "file"), [("fast", "model.onnx"), ("int8", "model.int8.onnx")])
def test_openvino_profile_is_the_model_in_bf16_without_batches(name: str, file: str) -> None:
    profile = profiles()[name]
    assert (profile.backend, profile.default_model_filename, profile.max_batch_size) == ("openvino", file, 1)
    assert profile.parameters["HINT_BF16"].string_value == "YES"
    assert profile.dynamic_batching.default_queue_policy.allow_timeout_override
    assert [(group.count, group.kind) for group in profile.instance_group] == [(0, 2)]  # KIND_CPU, as many as fit
    for same in ("input", "output"):
        assert list(getattr(profile, same)) == list(getattr(config(), same))
    assert profile.parameters["metadata"] == config().parameters["metadata"]


def test_int8_is_only_where_there_is_such_a_file() -> None:
    assert profiles().keys() == PROFILES
    assert profiles(int8=False).keys() == PROFILES - {"int8"}


@pytest.mark.parametrize(
    ("interface", "dims", "shapes"),
    [
        ("fused", [64, 96, 3], "image:8x64x96x3,fused/planes:8x3x64x96,fused/pixels:8x3x64x96,images:8x3x64x96"),
        ("ultralytics", [3, 64, 96], "images:8x3x64x96"),
    ],
)
def test_gpu_profile_fixes_the_size_and_batches(interface: Interface, dims: list[int], shapes: str) -> None:
    profile = profiles(interface)["gpu"]
    (accelerator,) = profile.optimization.execution_accelerators.gpu_execution_accelerator
    assert (profile.backend, accelerator.name, accelerator.parameters["precision_mode"]) == (
        "onnxruntime",
        "tensorrt",
        "FP16",
    )
    assert accelerator.parameters["trt_profile_max_shapes"] == shapes
    assert accelerator.parameters["trt_profile_min_shapes"] == shapes.replace(":8x", ":1x")
    assert list(profile.input[0].dims) == dims
    assert list(profile.output) == list(config(interface).output)
    assert [group.kind for group in profile.instance_group] == [1]  # KIND_GPU
    assert list(profile.dynamic_batching.preferred_batch_size) == [4, 8]
    assert profile.dynamic_batching.max_queue_delay_microseconds == 0
    warmed = [(sample.batch_size, list(sample.inputs[profile.input[0].name].dims)) for sample in profile.model_warmup]
    assert warmed == [(1, dims), (4, dims), (8, dims)]
    assert describe(profile, version="1").input.dims == tuple(dims)
    assert "'dynamic': False" in profile.parameters["metadata"].string_value


def test_models_share_no_engine_in_the_cache() -> None:
    prefixes = set()
    for name, digest in (("tiny", "a" * 64), ("tiny", "b" * 64), ("other", "a" * 64)):
        described = config()
        described.name = name
        gpu = describe_profiles(described, digest=digest, int8=False)["gpu"]
        (accelerator,) = gpu.optimization.execution_accelerators.gpu_execution_accelerator
        prefixes.add(accelerator.parameters["trt_engine_cache_prefix"])
    assert prefixes == {"tiny-aaaaaaaaaaaa", "tiny-bbbbbbbbbbbb", "other-aaaaaaaaaaaa"}


def test_profiles_travel_with_the_version_and_the_models_own_follow(tmp_path: Path) -> None:
    folder = write_version(tmp_path, with_profiles(int8=True))
    assert {path.stem for path in folder.glob("*.pbtxt")} == {"config", *PROFILES}
    assert (folder / "model.int8.onnx").is_file()
    own = tmp_path / "tiny" / "configs"
    for name in PROFILES:
        assert (own / f"{name}.pbtxt").read_bytes() == (folder / f"{name}.pbtxt").read_bytes()
    write_version(tmp_path, with_profiles(int8=False))
    assert {path.stem for path in own.iterdir()} == PROFILES - {"int8"}
    (own / "mine.pbtxt").write_text("")
    write_version(tmp_path, version())
    assert {path.stem for path in own.iterdir()} == {"mine"}
    assert not list((tmp_path / "tiny").glob(".*"))


def test_profiles_of_the_model_keep_its_version_policy_and_those_of_a_pinned_one_stay(tmp_path: Path) -> None:
    write_version(tmp_path, with_profiles(int8=False))
    path, fast = tmp_path / "tiny" / "config.pbtxt", tmp_path / "tiny" / "configs" / "fast.pbtxt"
    before = path.read_text(encoding="utf-8")
    path.write_text(before + "version_policy { latest { num_versions: 3 } }\n")
    write_version(tmp_path, with_profiles(int8=False))
    assert read_config(fast).version_policy.latest.num_versions == 3
    path.write_text(before + "version_policy { specific { versions: 1 } }\n")
    write_version(tmp_path, with_profiles(int8=True))
    assert not fast.with_name("int8.pbtxt").exists()


def test_failure_in_the_first_version_leaves_no_profile(tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError, match="'fp32' is a required property"):
        write_version(tmp_path, replace(with_profiles(int8=True), precisions={"int8": {"map50_95": 0.5}}))
    assert list(tmp_path.iterdir()) == []
