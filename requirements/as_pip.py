"""Run uv with the index, proxy and certificates of `pip config`: `python requirements/as_pip.py uv pip install ...`.

uv does not read pip's files, which name the mirror or the proxy where pip installs through one. Settings of
uv itself take precedence. Nothing of it comes into a lock: uv is set to write no address.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

# Every version of every index is compared with a hash, so it does not matter which one has it, as with pip.
_AS_PIP_CHOOSES = "unsafe-best-match"


def main(command: list[str]) -> None:
    """Replace this process by uv; where pip cannot list its settings, uv has its own alone."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    os.execvpe(command[0], command, translate(listed) | os.environ)  # noqa: S606 - no shell is wanted


def translate(listed: str) -> dict[str, str]:
    """What `pip config list` prints, as variables of uv."""
    settings = _read(listed)
    variables = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(settings.get("extra-index-url", "").split()),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", "").split()),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "ALL_PROXY": settings.get("proxy", ""),
    }
    if variables["UV_INDEX"]:
        variables["UV_INDEX_STRATEGY"] = _AS_PIP_CHOOSES
    return {name: value for name, value in variables.items() if value}


def _read(listed: str) -> Mapping[str, str]:
    """Options by name: those of the environment count more than those of `pip install`, and these more than all's."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.partition(".")
        try:
            found.get(section, {})[option] = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):  # no setting
            continue
    return found["global"] | found["install"] | found[":env:"]


if __name__ == "__main__":
    main(sys.argv[1:])
