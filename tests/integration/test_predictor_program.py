"""`python -m predictor` as a user runs it: help, errors, and which processes end together."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from predictor.errors import StartError
from predictor.triton.installation import Installation
from predictor.triton.libpython import fetch_libpython
from predictor.triton.preflight import check_libraries
from tests.support.models import write_model
from tests.support.ports import find_free_ports
from tests.support.stack import PATIENCE_S, wait_until
from tests.support.triton import PROJECT, start_triton


def run_program(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m predictor`."""
    command = [sys.executable, "-m", "predictor", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=os.environ | environ, capture_output=True, text=True, check=False)


def find_stubs(repository: Path) -> list[int]:
    """Return the processes that run a model of a repository."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = cmdline.read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if arguments[0].endswith("triton_python_backend_stub") and arguments[1].startswith(str(repository)):
            found.append(int(cmdline.parent.name))
    return found


def test_program_lists_its_commands() -> None:
    run = run_program("--help")
    assert run.returncode == 0
    assert "start the embedded Triton" in run.stdout


@pytest.mark.parametrize(
    ("environ", "status", "message"),
    [
        ({"PREDICTOR_REPOSITORY": "/absent"}, 1, "error: the model repository /absent is not a folder"),
        ({"PREDICTOR_HTTP_PORT": "web"}, 2, "error: PREDICTOR_HTTP_PORT: got 'web', expected: Input should be a valid"),
        (
            {"PREDICTOR_GRPC_PORT": "70000"},
            2,
            "error: PREDICTOR_GRPC_PORT: got '70000', expected: Input should be less than",
        ),
    ],
)
def test_program_names_the_invalid_setting(environ: dict[str, str], status: int, message: str) -> None:
    run = run_program("triton", **environ)
    assert run.returncode == status
    assert run.stderr.startswith(message)
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", ["synchroniser", "sync"])
def test_synchroniser_has_its_name_and_the_one_before(name: str) -> None:
    run = run_program(name, PREDICTOR_REPOSITORY="ftp://models")
    assert (run.returncode, "PREDICTOR_REPOSITORY" in run.stderr) == (2, True), run.stderr


def test_missing_library_is_named_with_the_next_step(tmp_path: Path) -> None:
    installation = Installation(tmp_path, tmp_path, "3.11", libpython_dir=None)
    installation.stub.parent.mkdir(parents=True)
    installation.stub.write_text(
        "#!/bin/sh\n"
        "echo 'stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open' >&2\n"
        "exit 127\n"
    )
    installation.stub.chmod(0o755)
    with pytest.raises(StartError, match=r"libpython3\.11\.so\.1\.0.*python -m predictor install"):
        check_libraries(installation, os.environ)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_server(tmp_path: Path, stop: signal.Signals) -> None:
    repository = tmp_path / "repository"
    write_model(repository, "identity")
    with start_triton(repository, tmp_path / "log") as triton:
        assert len(find_stubs(repository)) == 1
        triton.process.send_signal(stop)
        # A stub looks whether its parent's id still exists, and a zombie's does.
        triton.process.wait()
        wait_until_gone(repository)


def test_server_ends_with_its_parent(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_model(repository, "identity")
    ports = dict(zip(("HTTP", "GRPC", "METRICS"), map(str, find_free_ports(3)), strict=True))
    environ = {f"PREDICTOR_{name}_PORT": port for name, port in ports.items()}
    environ["PREDICTOR_REPOSITORY"] = str(repository)
    # The shell stays, as the parent: exec would make it the server.
    command = f"setpriv --pdeathsig TERM {sys.executable} -m predictor triton; true"
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen(["sh", "-c", command], cwd=PROJECT, env=os.environ | environ, stdout=log, stderr=log)
    wait_until(lambda: is_live(ports["HTTP"]), log=tmp_path / "log")
    parent.kill()
    parent.wait()
    wait_until_gone(repository)
    assert not is_live(ports["HTTP"])


def is_live(port: str) -> bool:
    """Whether Triton responds."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/live").is_success
    except httpx.TransportError:
        return False


def wait_until_gone(repository: Path) -> None:
    """Wait for the stubs of a repository to end."""
    deadline = time.monotonic() + PATIENCE_S
    while find_stubs(repository):
        assert time.monotonic() < deadline, find_stubs(repository)
        time.sleep(0.1)


APT_GET = """#!/bin/sh
# An archive that can be downloaded from only once lists have been made outside the system's own folder.
case "$*" in
    *-oDir::State=*update) touch updated ;;
    *download*) test -e updated && cp "$ARCHIVE" libpython3.11_1_amd64.deb ;;
esac
"""


def build_package(path: Path) -> str:
    """A package like Debian's libpython3.11; what its control file says."""
    package = path.parent / "package"
    library = package / "usr" / "lib" / "x86_64-linux-gnu" / "libpython3.11.so.1.0"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"the library")
    (package / "DEBIAN").mkdir()
    control = (
        "Package: libpython3.11\nVersion: 99\nArchitecture: amd64\nMaintainer: a <a@example.org>\nDescription: a\n"
    )
    (package / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", package, path], check=True, capture_output=True)
    return control


needs_dpkg = pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="needs dpkg-deb, to unpack what Debian's archive gives"
)


@needs_dpkg
def test_libpython_is_fetched_without_root_or_package_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_package(tmp_path / "archive.deb")
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.parent.mkdir()
    apt_get.write_text(APT_GET)
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt_get.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(tmp_path / "archive.deb"))
    (tmp_path / "venv" / "lib").mkdir(parents=True)
    fetched = fetch_libpython(Installation(tmp_path / "venv", tmp_path, "3.11", libpython_dir=None))
    assert fetched.read_bytes() == b"the library"
    assert list(fetched.parent.iterdir()) == [fetched]


# An archive without a signature, and an apt that accepts it.
APT_CONF = """
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::main "-";
Dir::Etc::parts "-";
Dir::State "{folder}/state";
Dir::Cache "{folder}/cache";
APT::Get::AllowUnauthenticated "true";
Acquire::AllowInsecureRepositories "true";
"""


@needs_dpkg
@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt-get, which no machine but Debian's has")
@pytest.mark.parametrize("options", ["", "[allow-insecure=yes]"])
def test_libpython_of_an_unsigned_archive_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    for folder in ("state/lists/partial", "cache/archives/partial", "archive", "downloads", "venv/lib"):
        (tmp_path / folder).mkdir(parents=True)
    package = tmp_path / "archive" / "libpython3.11_99_amd64.deb"
    control = build_package(package)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    listed = f"{control}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
    (package.parent / "Packages").write_text(listed)
    (tmp_path / "sources.list").write_text(f"deb {options} file:{package.parent} ./\n")
    (tmp_path / "apt.conf").write_text(APT_CONF.format(folder=tmp_path))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    for arguments in (["update"], ["download", "libpython3.11"]):
        subprocess.run(["apt-get", "-qq", *arguments], cwd=tmp_path / "downloads", capture_output=True, check=True)
    assert list((tmp_path / "downloads").iterdir()), "this apt itself takes it"
    with pytest.raises(StartError, match=r"apt-get cannot download it"):
        fetch_libpython(Installation(tmp_path / "venv", tmp_path, "3.11", libpython_dir=None))
    assert not list((tmp_path / "venv" / "lib").iterdir())


def test_unreachable_libpython_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\nexit 100\n")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"apt-get install libpython3\.11"):
        fetch_libpython(Installation(tmp_path, tmp_path, "3.11", libpython_dir=None))


def test_complete_installation_needs_nothing() -> None:
    run = run_program("install")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
