"""How many CPUs a process may use, by cgroup files as kernels write them."""

import os
from pathlib import Path

import pytest

from environment import cpus
from environment.cpus import cpu_limit, has_bf16
from predictor.settings import Settings as PredictorSettings
from transformer.settings import TransformerSettings

CORES = float(len(os.sched_getaffinity(0)))


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", CORES), ("50000 100000\n", 0.5), ("12800000 100000\n", min(CORES, 128.0)), ("nonsense", CORES)],
)
def test_limit_of_cgroup_version_2(tmp_path: Path, text: str, expected: float) -> None:
    write(tmp_path / "cgroups" / "pod" / "container", cpu__max="max 100000\n")
    write(tmp_path / "cgroups" / "pod", cpu__max=text)
    (tmp_path / "membership").write_text("0::/pod/container\n")
    assert cpu_limit(tmp_path / "cgroups", tmp_path / "membership") == expected


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", CORES), ("75000", 0.75)])
def test_limit_of_cgroup_version_1(tmp_path: Path, mount: str, quota: str, expected: float) -> None:
    write(tmp_path / "cgroups" / mount / "docker", cpu__cfs_quota_us=f"{quota}\n", cpu__cfs_period_us="100000\n")
    (tmp_path / "membership").write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    assert cpu_limit(tmp_path / "cgroups", tmp_path / "membership") == expected


def test_container_that_sees_only_its_own_cgroup(tmp_path: Path) -> None:
    write(tmp_path / "cgroups", cpu__max="25000 100000\n")
    (tmp_path / "membership").write_text("0::/../..\n")
    assert cpu_limit(tmp_path / "cgroups", tmp_path / "membership") == 0.25


def test_limit_without_cgroups(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path, tmp_path / "absent") == CORES


@pytest.mark.parametrize(("quota", "limit", "whole"), [("100000", 1.0, 1), ("50000", 0.5, 1), ("150000", 1.5, 2)])
def test_parts_take_their_defaults_from_the_container_s_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, limit: float, whole: int
) -> None:
    write(tmp_path / "cgroups" / "pod", cpu__max=f"{quota} 100000\n")
    (tmp_path / "membership").write_text("0::/pod\n")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroups")
    monkeypatch.setattr(cpus, "MEMBERSHIP", tmp_path / "membership")
    if limit > CORES:
        pytest.skip(f"needs {limit} CPUs, got {CORES:g}")
    transformer = TransformerSettings()
    assert (transformer.threads, transformer.max_in_flight) == (whole, 3 * whole)
    assert PredictorSettings().cpus == limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx512f amx_bf16\nflags\t\t: fpu\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name\t: amx_bf16\nflags\t\t: fpu\n", False),
        ("", True),
    ],
)
def test_bf16_of_the_cpu(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert has_bf16(tmp_path / "cpuinfo") is expected
    assert has_bf16(tmp_path / "absent")
