"""Triton's command line and environment from the settings, and errors when it cannot start."""

import platform
import socket
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from predictor.errors import StartError
from predictor.settings import Settings
from predictor.triton.command import PROJECT, compose_command
from predictor.triton.installation import Installation, find_installation, link_backends
from predictor.triton.preflight import check_ports, check_repository, check_shared_memory
from tests.support.ports import find_free_ports


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Return an installation whose stub is a shell script, so that its exit can be chosen."""
    site_packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    made = Installation(tmp_path / "venv", site_packages, "3.11", libpython_dir=None)
    for folder in (made.tritonserver.parent, made.backends / "python", made.stub.parent):
        folder.mkdir(parents=True)
    return made


def test_command_serves_the_whole_repository_on_loopback(installation: Installation) -> None:
    settings = Settings(repository="/models", http_port=1, grpc_port=2, metrics_port=3, shm_size_bytes=2**20)
    argv, _ = compose_command(settings, installation, environ={})
    assert argv[0] == str(installation.tritonserver)
    assert set(argv[1:]) >= {
        "--model-repository=/models",
        "--model-control-mode=none",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--backend-directory={installation.backends}",
        "--backend-config=python,shm-default-byte-size=1048576",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--http-port=1",
        "--grpc-port=2",
        "--metrics-port=3",
    }


def test_command_has_the_synchroniser_complete_configs_where_it_loads_the_models(installation: Installation) -> None:
    flag = "--disable-auto-complete-config"
    assert flag in compose_command(Settings(mirror=Path("mirror")), installation, environ={})[0]
    assert flag not in compose_command(Settings(), installation, environ={})[0], "no other program could"


def test_command_loads_the_mirror_only_without_a_policy(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "models" / "digits").mkdir(parents=True)
    flag = "--load-model=digits"
    assert flag in compose_command(Settings(mirror=tmp_path), installation, environ={})[0]
    signed = Settings(mirror=tmp_path, signed_by=tmp_path / "keys")
    argv, _ = compose_command(signed, installation, environ={})
    assert "--model-control-mode=explicit" in argv
    assert not [word for word in argv if word.startswith("--load-model")], "Triton would serve what is not verified"


def test_command_makes_a_relative_repository_absolute(installation: Installation) -> None:
    argv, _ = compose_command(Settings(repository="models"), installation, environ={})
    assert f"--model-repository={Path.cwd() / 'models'}" in argv


def test_environment_puts_the_other_environment_first(installation: Installation) -> None:
    environ = {"PATH": "/bin", "PYTHONPATH": "/mine", "PYTHONHOME": "/mine", "HOME": "/home/me"}
    _, env = compose_command(Settings(), installation, environ=environ)
    assert env["PATH"] == f"{installation.venv}/bin:/bin"
    assert env["PYTHONPATH"] == f"{installation.site_packages}:{PROJECT}"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["HOME"] == "/home/me"
    assert "PYTHONHOME" not in env
    assert "LD_LIBRARY_PATH" not in env
    assert environ["PATH"] == "/bin"


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [({}, "/opt/python/lib"), ({"LD_LIBRARY_PATH": "/a:/b"}, "/opt/python/lib:/a:/b")],
)
def test_environment_finds_the_libpython_of_the_interpreter(
    installation: Installation, inherited: dict[str, str], expected: str
) -> None:
    own = Installation(installation.venv, installation.site_packages, "3.11", libpython_dir=Path("/opt/python/lib"))
    assert compose_command(Settings(), own, environ=inherited)[1]["LD_LIBRARY_PATH"] == expected


def test_settings_read_the_environment_and_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_HTTP_PORT", "9000")
    monkeypatch.setenv("PREDICTOR_REPOSITORY", "/models")
    settings = Settings()
    assert (settings.http_port, settings.repository) == (9000, "/models")
    with pytest.raises(ValidationError, match="frozen"):
        settings.http_port = 1  # type: ignore[misc]


def test_links_are_made_once_and_corrected(installation: Installation) -> None:
    stub_link = installation.backends / "python" / "triton_python_backend_stub"
    stub_link.symlink_to("/nowhere")
    link_backends(installation)
    made = stub_link.lstat()
    link_backends(installation)
    assert stub_link.readlink() == installation.stub
    assert stub_link.lstat().st_ino == made.st_ino
    assert (installation.backends / "onnxruntime" / "model.py").exists()
    assert sorted(p.name for p in installation.backends.iterdir()) == ["onnxruntime", "openvino", "python"]


def test_missing_environment_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"make \.venv-triton"):
        find_installation(tmp_path / "absent")


def test_environment_without_the_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(StartError, match="has no nvidia-pytriton"):
        find_installation(tmp_path)


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64")])
def test_other_platforms_are_referred_to_triton_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(StartError, match=f"{system} {machine}.*TRITON_URL"):
        find_installation(tmp_path)


def test_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"absent.*PREDICTOR_REPOSITORY"):
        check_repository(Settings(repository=str(tmp_path / "absent")))


@pytest.mark.parametrize("name", ["http_port", "grpc_port", "metrics_port"])
def test_port_in_use_is_named_with_its_variable(name: str) -> None:
    names = ("http_port", "grpc_port", "metrics_port")
    ports = dict(zip(names, find_free_ports(len(names)), strict=True))
    with (
        socket.create_server(("127.0.0.1", ports[name])),
        pytest.raises(StartError, match=f"port {ports[name]} .*PREDICTOR_{name.upper()} .*TRITON_{name.upper()}"),
    ):
        check_ports(Settings.model_validate(ports))


def test_same_port_twice_is_named() -> None:
    with pytest.raises(StartError, match="port 40001 is set twice, by PREDICTOR_HTTP_PORT and PREDICTOR_GRPC"):
        check_ports(Settings(http_port=40001, grpc_port=40001, metrics_port=40003))


def test_missing_shared_memory_is_named(tmp_path: Path) -> None:
    check_shared_memory(tmp_path)
    with pytest.raises(StartError, match=r"absent.*next: mount a tmpfs"):
        check_shared_memory(tmp_path / "absent")
