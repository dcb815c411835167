"""Renders the manifests like `kubectl apply -k`."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
KUBECTL_MISSING = (
    "kubectl is missing, which renders the manifests; no package of pip brings it. "
    "Next: https://kubernetes.io/docs/tasks/tools/ (one file, no root needed)"
)
_TIMEOUT_S = 60
Object = Mapping[str, Any]


class RenderError(Exception):
    """A folder cannot be rendered; the message has kubectl's error."""


@dataclass(frozen=True)
class Render:
    """The rendered objects of a folder.

    Attributes:
        name: of the folder below manifests/; of a user's folder, its path.
        objects: in the order of kustomize.
        is_foreign: whether it is a user's own folder.
        secrets: that the user creates, beyond those of the manual.
    """

    name: str
    objects: tuple[Object, ...]
    is_foreign: bool = False
    secrets: frozenset[str] = frozenset()

    def of_kind(self, *kinds: str) -> Iterator[Object]:
        """The objects of these kinds."""
        return (each for each in self.objects if each["kind"] in kinds)

    def names(self, kind: str) -> set[str]:
        """Names of the objects of a kind."""
        return {each["metadata"]["name"] for each in self.of_kind(kind)}

    def named(self, kind: str, name: str) -> Object | None:
        """The object of this kind and name."""
        return next((each for each in self.of_kind(kind) if each["metadata"]["name"] == name), None)


def read_documents(text: str) -> Iterator[Any]:
    """The documents of YAML that are not empty; by libyaml, where PyYAML has it: ten times as fast."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from filter(None, yaml.load_all(text, Loader=loader))


@cache
def find_folders(root: Path = MANIFESTS) -> tuple[str, ...]:
    """Folders for `kubectl apply -k`, as names below `root`.

    Without components, and without folders that their parent folder includes.
    """
    found = {path.parent: next(read_documents(path.read_text())) for path in root.rglob("kustomization.yaml")}
    inner = {(folder / name).resolve() for folder, of in found.items() for name in of.get("resources", [])}
    names = (
        str(folder.relative_to(root))
        for folder, of in found.items()
        if of.get("kind") != "Component" and not (folder.parent in found and folder.resolve() in inner)
    )
    return tuple(sorted(names))


def has_kubectl() -> bool:
    """Whether kubectl is installed."""
    return shutil.which("kubectl") is not None


needs_kubectl = pytest.mark.skipif(not has_kubectl(), reason=KUBECTL_MISSING)


@cache
def render(name: str, root: Path = MANIFESTS) -> Render:
    """Render a folder; cached.

    Raises:
        RenderError: kubectl is missing, or rejects the folder.
    """
    return Render(name, _run(root / name))


def render_foreign(folder: Path, secrets: Iterable[str] = ()) -> Render:
    """Render a user's own folder, wherever it is.

    Args:
        folder: with a kustomization.
        secrets: names of Secrets that exist before the first apply.

    Raises:
        RenderError: see `render`.
    """
    return Render(str(folder), _run(folder), is_foreign=True, secrets=frozenset(secrets))


def render_over(name: str, kustomization: Mapping[str, Any], folder: Path) -> Render:
    """Render a user's kustomization over a folder of ours.

    Args:
        name: of our folder.
        kustomization: its fields beside `resources`.
        folder: an empty one, for the kustomization.

    Raises:
        RenderError: see `render`.
    """
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    resources = [os.path.relpath(MANIFESTS / name, folder.resolve())]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**head, "resources": resources, **kustomization}))
    return Render(name, _run(folder))


def render_in(name: str, namespace: str, folder: Path) -> Render:
    """Render a folder of ours for another namespace, like a user's overlay.

    Args:
        name: of our folder.
        namespace: instead of `nereid`.
        folder: an empty one, for the overlay.

    Raises:
        RenderError: see `render`.
    """
    return render_over(name, {"namespace": namespace}, folder)


def with_components(folder: Path, *names: str) -> dict[str, Any]:
    """Fields of a kustomization in a folder that include components of ours, in order."""
    here = folder.resolve()
    return {"components": [os.path.relpath(MANIFESTS / "components" / name, here) for name in names]}


def _run(folder: Path) -> tuple[Object, ...]:
    if not has_kubectl():
        raise RenderError(KUBECTL_MISSING)
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise RenderError(done.stderr.strip().removeprefix("error: "))
    return tuple(read_documents(done.stdout))


def title(each: Object) -> str:
    """`Kind/name`."""
    return f"{each['kind']}/{each['metadata']['name']}"
