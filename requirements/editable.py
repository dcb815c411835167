"""The build backend of pyproject.toml (PEP 517, PEP 660): the project can be installed editable, and in no other way.

Nereid is an application. A wheel of it would put folders such as `export` and `transformer` into a site-packages that
others share. Editable, an installation is this folder's path and the command `nereid`. This backend builds that with
the standard library alone, so that nothing has to come from an index first.
"""

import base64
import hashlib
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any, NoReturn

_REASON = "error: nereid: no {} is built, since it is an application and no library; next: uv pip install --editable ."
_WHEEL = "Wheel-Version: 1.0\nGenerator: nereid\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Write a wheel that has the path of this folder, and the commands of `[project.scripts]`.

    Args:
        wheel_directory: where to.
        config_settings: unused; PEP 660 has it.
        metadata_directory: unused; PEP 660 has it.

    Returns:
        The name of the file.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = f"{name}-{version}.dist-info"
    commands = "".join(f"{command} = {place}\n" for command, place in project.get("scripts", {}).items())
    files = {
        f"{name}.pth": f"{Path.cwd()}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": _WHEEL,
        f"{info}/entry_points.txt": f"[console_scripts]\n{commands}",
    }
    files[f"{info}/RECORD"] = "".join(map(_record, files.items())) + f"{info}/RECORD,,\n"
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, wheel), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def _record(file: tuple[str, str]) -> str:
    path, text = file
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text.encode())}\n"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> NoReturn:
    """End with the reason."""
    sys.exit(_REASON.format("wheel"))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> NoReturn:
    """End with the reason."""
    sys.exit(_REASON.format("source distribution"))
