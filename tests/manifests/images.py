"""Images that a cluster needs: `python -m tests.manifests.images` (`make images-list`).

A line for each image: name, origin, folders. `built`: by `make images`; `pulled`: of other projects; `base`: the base
image of ours. Images of KServe, Knative and other installations are not listed.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from containers.build import DOCKERFILE, IMAGES, ROOT
from tests.manifests.rendering import KUBECTL_MISSING, MANIFESTS, RenderError, find_folders, has_kubectl, render
from tests.manifests.rules.objects import PLACEHOLDERS

_OURS = {f"nereid/{image.name}" for image in IMAGES}
_BASE = re.compile(r"^ARG PYTHON_IMAGE=(\S+)$", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(prog="make images-list", description=__doc__.partition("\n")[0])
    parser.add_argument("--overlay", type=Path, help="a folder of your own (default: all of manifests/)")
    overlay = parser.parse_args(arguments).overlay
    if not has_kubectl():
        sys.exit(f"error: {KUBECTL_MISSING}")
    try:
        found = of_overlay(overlay) if overlay else of_all()
    except RenderError as exc:
        sys.exit(f"error: {exc}")
    lines = [(name, origin(name), " ".join(folders)) for name, folders in found.items()]
    lines += [(name, "base", "PYTHON_IMAGE of make images") for name in sorted(bases())]
    width = max(len(name) for name, _, _ in lines)
    for name, source, where in lines:
        print(f"{name:{width}}  {source:6}  {where}")


def of_all() -> dict[str, list[str]]:
    """Images of all folders of manifests/, without those with a placeholder as registry or digest.

    Raises:
        RenderError: see `render`.
    """
    found: dict[str, list[str]] = {}
    for folder in find_folders():
        for name in sorted(set(images_in(render(folder).objects))):
            if not PLACEHOLDERS.search(name):
                found.setdefault(name, []).append(folder)
    return dict(sorted(found.items()))


def of_overlay(folder: Path) -> dict[str, list[str]]:
    """Images of one folder that `kubectl apply -k` takes.

    Raises:
        RenderError: see `render`; also for a missing folder.
    """
    place = next((path for path in (folder, MANIFESTS / folder) if (path / "kustomization.yaml").is_file()), None)
    if place is None:
        raise RenderError(
            f"OVERLAY: got {folder}, expected a folder with a kustomization.yaml, by its path or below manifests/"
        )
    return {name: [str(folder)] for name in sorted(set(images_in(render("", place.resolve()).objects)))}


def images_in(value: Any) -> Iterator[str]:
    """Images of all containers of a render."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in {"containers", "initContainers"} and isinstance(inner, Iterable):
                yield from (str(each["image"]) for each in inner if "image" in each)
            else:
                yield from images_in(inner)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from images_in(each)


def origin(name: str) -> str:
    """`built` or `pulled`: whether `make images` builds the image, whatever its registry."""
    path = re.sub(r"(@sha256:[0-9a-f]+|:[^:/]+)$", "", name)
    return "built" if any(path == ours or path.endswith(f"/{ours}") for ours in _OURS) else "pulled"


def bases() -> set[str]:
    """Base images of ours."""
    return set(_BASE.findall((ROOT / DOCKERFILE).read_text()))


if __name__ == "__main__":
    main()
