"""Installation by make rejects a mirror that changed a file, and packages that no lock names.

The real Makefile with the real uv and pip, in a folder of its own, with locks of two small packages and a folder of
wheels in place of an index.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = (
    "Makefile",
    "environment/arguments.py",
    "predictor/settings.py",
    "requirements/as_pip.py",
    "requirements/editable.py",
    "stack/variables.py",
    "transformer/settings.py",
)
EXTRAS = ("export", "loadtest", "otel", "stack", "synchroniser", "test", "transformer")


def wheel(name: str, *, code: str = "", requires: str = "", version: str = "1.0") -> bytes:
    """A wheel with one module."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,\n"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def source(name: str, mark: Path) -> bytes:
    """A source distribution that is built by the package `builder`."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = ["builder"]\nbuild-backend = "builder"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "setup.py": f"open({str(mark)!r}, 'w')\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def lock(**files: bytes) -> str:
    """A line for each package, with the hash of its file."""
    return "".join(f"{name}==1.0 --hash=sha256:{hashlib.sha256(file).hexdigest()}\n" for name, file in files.items())


class Project:
    """A project with the Makefile of this one.

    Attributes:
        folder: of the project.
        index: what packages come from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder / "project", folder / "index"
        self._home = folder / "home"
        for made in (self.folder, self.index, self._home):
            made.mkdir(parents=True)
        for name in COPIED:
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        extras = "".join(f"{name} = []\n" for name in EXTRAS if name != "stack")
        self.write(
            "pyproject.toml",
            '[build-system]\nrequires = []\nbackend-path = ["requirements"]\nbuild-backend = "editable"\n'
            '[project]\nname = "small"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = []\n'
            '[project.scripts]\nsmall = "here:main"\n'
            f'[project.optional-dependencies]\nstack = ["first"]\n{extras}',
        )
        for name in (
            "requirements/build-constraints.txt",
            "requirements/constraints.txt",
            "requirements/overrides.txt",
            "predictor/requirements.txt",
        ):
            self.write(name, "")

    def write(self, name: str, text: str) -> None:
        """A file of the project."""
        (self.folder / name).write_text(text)

    def with_uv(self) -> None:
        """The state after the first step: the environment exists and has uv."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder / ".venv"], check=True)
        shutil.copy(ROOT / ".venv" / "bin" / "uv", self.folder / ".venv" / "bin")

    def offer(self, **files: bytes) -> None:
        """Put wheels into the index; a name with `__sdist` is a source distribution."""
        for name, file in files.items():
            plain = name.removesuffix("__sdist")
            suffix = "-py3-none-any.whl" if name == plain else ".tar.gz"
            (self.index / f"{plain}-1.0{suffix}").write_bytes(file)

    def make(self, *arguments: str) -> tuple[int, str]:
        """Run make with that index and nothing else; its exit status, and its errors in one line."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "MAKE"))}
        index = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(self.index), "UV_CACHE_DIR": str(self._home / "cache")}
        index |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "HOME": str(self._home)}
        run = subprocess.run(
            ["make", f"PYTHON={sys.executable}", *arguments],
            cwd=self.folder,
            env=kept | index,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return run.returncode, " ".join(run.stderr.split())

    def has(self, module: str, *, environment: str = ".venv") -> bool:
        """Whether a module is installed."""
        return any((self.folder / environment).glob(f"lib/python3*/site-packages/{module}.py"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


GOOD = {"first": wheel("first", requires="second"), "second": wheel("second")}


def test_packages_of_the_lock_are_installed(project: Project) -> None:
    project.with_uv()
    project.write("requirements/constraints.txt", lock(**GOOD))
    project.offer(**GOOD)
    status, errors = project.make(".venv/.stack")
    assert status == 0, errors
    assert project.has("first")
    assert project.has("second")


def test_command_of_the_project_works_from_another_folder(project: Project, tmp_path: Path) -> None:
    project.with_uv()
    project.write("requirements/constraints.txt", lock(**GOOD))
    project.write("here.py", "import first\ndef main(): print('ran', first.__name__)\n")
    project.offer(**GOOD)
    assert project.make(".venv/.stack")[0] == 0
    done = subprocess.run(
        [project.folder / ".venv/bin/small"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ran first\n"
    assert not project.has("here"), "it is in its own folder alone"


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_project_is_installable_in_place_only(tmp_path: Path, kind: str) -> None:
    command = [str(ROOT / ".venv/bin/uv"), "build", "--offline", f"--{kind}", "--out-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "error: nereid: " in line]
    assert line.endswith("next: uv pip install --editable .")
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".whl", ".gz"}]


@pytest.mark.parametrize("changed", ["first", "second"])
def test_changed_file_of_a_mirror_is_not_installed(project: Project, changed: str) -> None:
    project.with_uv()
    project.write("requirements/constraints.txt", lock(**GOOD))
    requires = "second" if changed == "first" else ""
    project.offer(**GOOD | {changed: wheel(changed, code="print('changed')", requires=requires)})
    status, errors = project.make(".venv/.stack")
    assert status != 0
    assert f"Hash mismatch for `{changed}==1.0`" in errors
    assert not project.has(changed)


def test_package_that_no_lock_names_is_not_installed(project: Project) -> None:
    project.with_uv()
    project.write("requirements/constraints.txt", lock(first=GOOD["first"]))
    project.offer(**GOOD)
    status, errors = project.make(".venv/.stack")
    assert status != 0
    assert "no trusted hash was provided for: `second`" in errors
    assert not project.has("second")


def test_build_requirements_of_a_package_are_verified_by_hash_too(project: Project, tmp_path: Path) -> None:
    project.with_uv()
    sdist = source("first", tmp_path / "built")
    builder = wheel("builder", code=f"open({str(tmp_path / 'built')!r}, 'w')\n")
    project.write("requirements/constraints.txt", lock(first=sdist))
    project.offer(first__sdist=sdist, builder=builder)
    status, errors = project.make(".venv/.stack")
    assert status != 0
    assert "no trusted hash was provided for: `builder`" in errors
    assert not (tmp_path / "built").exists()
    project.write("requirements/build-constraints.txt", lock(builder=builder))
    assert project.make(".venv/.stack")[0] != 0, "it builds nothing"
    assert (tmp_path / "built").exists(), "with its hash it runs"


def test_changed_triton_is_not_installed(project: Project) -> None:
    project.with_uv()
    (project.folder / ".venv" / ".stack").touch()
    project.write("predictor/requirements.txt", lock(first=GOOD["first"]))
    project.offer(first=wheel("first", code="print('changed')"))
    _, errors = project.make(".venv-triton/.installed", "--old-file=.venv/.stack")
    assert "Hash mismatch for `first==1.0`" in errors
    assert not project.has("first", environment=".venv-triton")


def test_changed_scanner_is_not_installed(project: Project) -> None:
    project.with_uv()
    (project.folder / "tests" / "manifests").mkdir(parents=True)
    project.write("tests/manifests/scan-requirements.txt", lock(first=GOOD["first"]))
    project.offer(first=wheel("first", code="print('changed')"))
    _, errors = project.make(".venv-scan/.installed")
    assert "Hash mismatch for `first==1.0`" in errors
    assert not project.has("first", environment=".venv-scan")


def test_uv_of_a_mirror_is_not_run(project: Project) -> None:
    (version,) = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shutil.copy(ROOT / "requirements/installer.txt", project.folder / "requirements")
    changed = wheel("uv", code="print('changed')", version=version)
    (project.index / f"uv-{version}-py3-none-any.whl").write_bytes(changed)
    status, errors = project.make(".venv/bin/uv")
    assert status != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in errors
    assert not project.has("uv")
