"""`make images` with engines that only say what real ones say."""

import sys
from pathlib import Path

import pytest
import yaml

from containers import build
from containers.base_stand_in import BuildError
from containers.build import AMD64, ARM64, IMAGES

DIGEST = "sha256:" + "ab" * 32
NAME = "registry.test/nereid/transformer:1"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs first."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_digest_of_a_push_is_the_registrys(engine: Path) -> None:
    program(engine, "docker", f"echo 1: digest: {DIGEST} size: 1574")
    for name in ("podman", "buildah"):
        program(engine, name, f'test "$1 $2" = "push --digestfile" && printf {DIGEST} > "$3"')
    assert {build.push(name, NAME) for name in build.ENGINES} == {DIGEST}


def test_push_without_a_digest_is_an_error(engine: Path) -> None:
    program(engine, "docker", "echo Pushed")
    with pytest.raises(BuildError, match="docker push printed no digest, expected one; it printed:\nPushed"):
        build.push("docker", NAME)
    program(engine, "podman", "echo unauthorized >&2; exit 125")
    with pytest.raises(BuildError, match="podman push got exit status 125, expected 0:\nunauthorized"):
        build.push("podman", NAME)


def test_build_for_another_machine_says_what_it_may_lack(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    program(engine, "podman", "echo subprocess exited with status 1 >&2; exit 1")
    failed = (
        "containers/Dockerfile, target transformer: podman build got exit status 1, expected 0:\n"
        "subprocess exited with status 1"
    )
    hint = "\nPLATFORM: got linux/arm64, expected one whose programs run here (linux/amd64); next: build on a machine"
    for platform, words in (("", failed), (AMD64, failed), (ARM64, failed + hint)):
        with pytest.raises(BuildError) as caught:
            build.build("podman", IMAGES[0], NAME, platform)
        assert str(caught.value).startswith(words)
        assert ("PLATFORM" in str(caught.value)) == (platform == ARM64)


def test_build_names_the_platform_and_no_value_of_the_environment(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:password@index.test/simple")
    program(engine, "buildah", f'echo "$@" > {engine}/arguments')
    build.build("buildah", IMAGES[0], NAME, ARM64)
    output = (engine / "arguments").read_text()
    assert "--platform linux/arm64" in output
    assert "--build-arg PIP_INDEX_URL" in output
    assert all(f"--label {name}={value}" in output for name, value in build.labels(pushed=False).items())
    assert "password" not in output


def test_image_for_another_platform_is_left_out(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(engine, "podman", "echo 1 MB")
    monkeypatch.setattr(sys, "argv", ["containers/build.py", "--engine=podman", "--tag=t", f"--platform={ARM64}"])
    assert build.main() == 0
    output = capsys.readouterr().out
    assert f"left out: nereid/cpu-triton:t, which exists for {AMD64} only" in output
    built = [line.split()[-1] for line in output.splitlines() if line.startswith("podman builds")]
    assert built == ["nereid/transformer:t", "nereid/predictor:t", "nereid/worker:t"]


@pytest.mark.parametrize("tag", ["-a", ".a", "a b", "a/b", "a:b", "", "x" * 129])
def test_tag_that_no_registry_accepts_is_rejected(
    tag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["containers/build.py", f"--tag={tag}"])
    with pytest.raises(SystemExit, match="2"):
        build.main()
    assert f"TAG: got {tag!r}, expected letters" in capsys.readouterr().err


def test_output_after_a_push_can_be_pasted_into_a_kustomization() -> None:
    output = build.describe_digests({"transformer": f"registry.test:5000/nereid/transformer@{DIGEST}"})
    assert f"  kustomize edit set image nereid/transformer=registry.test:5000/nereid/transformer@{DIGEST}\n" in output
    assert yaml.safe_load(output.partition("kustomization.yaml:\n")[2]) == {
        "images": [{"name": "nereid/transformer", "newName": "registry.test:5000/nereid/transformer", "digest": DIGEST}]
    }


def test_labels_of_an_image_that_is_not_pushed_have_no_commit() -> None:
    assert {name.rpartition(".")[2] for name in build.labels(pushed=False)} == {"version", "source"}
    pushed = build.labels(pushed=True)
    assert {name.rpartition(".")[2] for name in pushed} == {"version", "source", "revision", "created"}
    assert pushed == build.labels(pushed=True)
