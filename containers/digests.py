"""The file that names what was pushed, by digest: what later steps scan, sign and deploy.

A JSON object: the name of an image without `nereid/`, and `<registry>/<name>@sha256:<64 hex digits>`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from containers.base_stand_in import BuildError

_PUSHED = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")


def write_digests(path: Path, digests: Mapping[str, str]) -> None:
    """Write the file.

    Args:
        path: of the file; its folder is made.
        digests: what was pushed, by the name of the image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def read_digests(path: Path, registry: str = "") -> dict[str, str]:
    """What was pushed, by the name of the image.

    Args:
        path: of the file.
        registry: that all of it has to be of, as for `make images`; empty for any.

    Raises:
        BuildError: the file is missing, or another one, or names another registry.
    """
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BuildError(f"{path}: {exc}; next: make images PUSH=1 DIGESTS={path}") from exc
    if not isinstance(digests, dict) or not digests:
        raise BuildError(f"{path}: got no image, expected those of make images PUSH=1 DIGESTS={path}")
    for name, pushed in digests.items():
        if not isinstance(pushed, str) or not _PUSHED.fullmatch(pushed):
            raise BuildError(f"{path}: {name}: got {pushed!r}, expected <registry>/<name>@sha256:<64 hex digits>")
        if registry and pushed.partition("@")[0] != f"{registry.rstrip('/')}/{name}":
            raise BuildError(f"{path}: {name}: got {pushed}, expected {registry.rstrip('/')}/{name}: see REGISTRY")
    return digests
