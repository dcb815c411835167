"""`make deploy`: write the digests of pushed images into an overlay, and commit nothing.

As `kustomize edit set image` does, which kubectl lacks, but it fails where the overlay does not come to name what was
pushed. All else in the file, comments too, stays as it is.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import yaml

from containers.base_stand_in import BuildError, check
from containers.digests import read_digests
from containers.supply import end

KUSTOMIZATION = "kustomization.yaml"
_REPLACED = ("name", "newName", "newTag", "digest")
_IMAGE = re.compile(r"^\s*(?:- )?image: [\"']?([^\s\"']+)", re.MULTILINE)


def main() -> int:
    """Change the overlay."""
    parser = argparse.ArgumentParser(prog="make deploy", description=__doc__.partition("\n")[0])
    parser.add_argument("--overlay", type=Path, required=True, help=f"a folder with {KUSTOMIZATION}")
    parser.add_argument("--digests", type=Path, required=True, help="the file of make images PUSH=1")
    parser.add_argument("--registry", default="", help="that they have to be of (default: any)")
    options = parser.parse_args()
    return end(partial(deploy, options.overlay, options.digests, options.registry))


def deploy(overlay: Path, digests: Path, registry: str = "") -> None:
    """Write the digests, and print what the overlay names now.

    Args:
        overlay: a folder with a kustomization.yaml, whose `images` names those of ours that it wants.
        digests: the file of `make images PUSH=1`.
        registry: that all of them have to be of; empty for any.

    Raises:
        BuildError: the overlay names none of these images, or comes to name others than these; they are of another
            registry.
    """
    path = overlay / KUSTOMIZATION
    if not path.is_file():
        raise BuildError(f"OVERLAY: got {overlay}, expected a folder with {KUSTOMIZATION}")
    pushed = read_digests(digests, registry)
    before = path.read_text(encoding="utf-8")
    after, written = set_images(before, {f"nereid/{name}": named for name, named in pushed.items()})
    if not written:
        names = ", ".join(f"nereid/{name}" for name in pushed)
        raise BuildError(f"{path}: images: got none of {names}, expected one to give its digest; next: name it there")
    path.write_text(after, encoding="utf-8")
    try:
        _check_render(overlay, pushed)
    except BuildError:
        path.write_text(before, encoding="utf-8")
        raise
    for name in written:
        print(f"{path}: {name} is {pushed[name.removeprefix('nereid/')]}")


def set_images(text: str, pushed: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace tag or digest of the images that a kustomization names.

    Args:
        text: of the kustomization, in YAML's block style.
        pushed: `<registry>/<name>@sha256:<digest>` by the name of an image in the manifests.

    Returns:
        The text, and the names that were found in it.
    """
    lines = text.splitlines(keepends=True)
    written = []
    for entry in reversed(_entries(text)):
        places = {key.value: key.start_mark.line for key, _ in entry.value}
        name = next((value.value for key, value in entry.value if key.value == "name"), "")
        if name not in pushed:
            continue
        written.append(name)
        registry, _, digest = pushed[name].partition("@")
        start, column = entry.start_mark.line, entry.start_mark.column
        replaced = {places[key] for key in _REPLACED if key in places}
        kept = [" " * column + lines[n][column:] for n in range(start, max(places.values()) + 1) if n not in replaced]
        new = [f"name: {name}", f"newName: {registry}", f"digest: {digest}"]
        head = [(lines[start][:column] if line is new[0] else " " * column) + f"{line}\n" for line in new]
        lines[start : max(places.values()) + 1] = head + kept
    return "".join(lines), written[::-1]


def _entries(text: str) -> list[yaml.MappingNode]:
    """The entries of `images`, with their places in the text."""
    root = yaml.compose(text, yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    images = next((value for key, value in pairs if key.value == "images"), None)
    if not isinstance(images, yaml.SequenceNode):
        return []
    return [each for each in images.value if isinstance(each, yaml.MappingNode) and not each.flow_style]


def _check_render(overlay: Path, pushed: Mapping[str, str]) -> None:
    """Compare what the overlay renders to with what was pushed, where kubectl is there."""
    if shutil.which("kubectl") is None:
        print("not rendered: kubectl is missing")
        return
    rendered = check(["kubectl", "kustomize", str(overlay)], f"{overlay}: kubectl kustomize")
    images = set(_IMAGE.findall(rendered))
    if not images & set(pushed.values()):
        found = ", ".join(sorted(images)) or "none"
        raise BuildError(f"{overlay}: it renders to images {found}; expected one that was pushed")
    for name, named in pushed.items():
        ours = [each for each in images if re.search(rf"(^|/)nereid/{re.escape(name)}[:@]", each) and each != named]
        if ours:
            raise BuildError(f"{overlay}: it renders to {', '.join(ours)}, expected {named}; next: list it in images")


if __name__ == "__main__":
    sys.exit(main())
