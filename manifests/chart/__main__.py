"""Make a Helm chart of the manifests: `python -m manifests.chart <folder for it>` (`make chart`; needs kubectl).

No object is written by hand: kustomize renders each mode with and without each component, and differences get a guard.
Where two components change the same value, the last one prevails, which is compared with kustomize's result.
"""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from manifests.chart.tree import Change, Node, differences, keyed
from manifests.chart.values import COMPONENTS, MODES, STRING, TEXT, VALUES, Component, Text
from manifests.chart.writer import HASH, NAMESPACE, PREFIX, SERVICE, ChartError, Writer
from manifests.openapi import KUBERNETES

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MANIFESTS = ROOT / "manifests"
_TIMEOUT_S = 120

Renderer = Callable[[str, frozenset[str]], Mapping[str, Any]]  # mode, components: objects by `<kind>/<name>`


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(prog="make chart", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the archive goes")
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = compose()
        chart = yaml.safe_load(files["Chart.yaml"])
        path = folder / f"{chart['name']}-{chart['version']}.tgz"
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(pack(chart["name"], files))
        unfinished.rename(path)  # atomic: the archive is complete or missing
    except ChartError as exc:
        sys.exit(f"error: {exc}")
    except OSError as exc:
        sys.exit(f"error: {folder}: {exc.strerror}, expected a folder that can be written")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; no chart was written")
    print(path)


def compose() -> dict[str, str]:
    """The files of the chart, by their paths in it.

    Raises:
        ChartError: kubectl is missing or rejects a composition, or components depend on their order.
    """
    files = {f"templates/{name}": (HERE / name).read_text() for name in ("_helpers.tpl", "checks.tpl", "NOTES.txt")}
    used: dict[str, tuple[str, str] | None] = {}
    defines = []
    for mode in MODES:
        writer = Writer(mode)
        for title, node in objects_of(mode):
            if title.startswith("Namespace/"):
                # A platform's namespace needs them too.
                labels = dict(dict(node.inside().children())["metadata"].children())["labels"]
                writer.define("namespace", labels, title)
            else:
                files[f"templates/{mode}/{title.replace('/', '-').lower()}.yaml"] = writer.file(title, node)
        used |= writer.used
        defines += writer.defines
    if unused := [each.value for each in VALUES if each.value not in used]:
        raise ChartError(f"{', '.join(unused)}: without a place in the manifests; next: manifests/chart/values.py")
    table = {each.value: {"modes": [*each.modes], "needs": [*each.needs]} for each in COMPONENTS if each.comment}
    components = f'{{{{- define "nereid.components" -}}}}\n{json.dumps(table)}\n{{{{- end -}}}}'
    files["templates/_manifests.tpl"] = "\n\n".join([components, *defines, ""])
    return files | {
        "Chart.yaml": yaml.safe_dump(_chart(), sort_keys=False),
        "values.yaml": "\n".join(_values(_tree(used), "")) + "\n",
        "values.schema.json": json.dumps(_schema(_tree(used)), indent=2) + "\n",
    }


def objects_of(mode: str, render: Renderer | None = None) -> Iterator[tuple[str, Node]]:
    """The objects of a mode, by `<kind>/<name>`, with what each component changes.

    Args:
        mode: serverless, standard or plain.
        render: renders a mode with components; kustomize by default.

    Raises:
        ChartError: two components change the same value, and the chart would let the other one prevail.
    """
    render = render or render_with_kustomize
    components = [each for each in COMPONENTS if mode in each.modes]
    base = render(mode, frozenset())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        befores = pool.map(lambda each: render(mode, frozenset(each.needs + each.after)), components)
        afters = pool.map(lambda each: render(mode, _with(each)), components)
    changes = (Change(each.value, *both) for each, *both in zip(components, befores, afters, strict=True))
    node = Node(base, tuple(changes))
    for together in {frozenset(each.value for each in components), *_touching(node, components)}:
        for difference in differences(node.at(together), render(mode, together)):
            names = ", ".join(sorted(together))
            raise ChartError(f"{mode} with {names}: the chart and kustomize differ, {difference}; expected one order")
    yield from node.children()


@cache
def render_with_kustomize(mode: str, on: frozenset[str]) -> Mapping[str, Any]:
    """Render a mode with components by kustomize: objects by `<kind>/<name>`, see `keyed`.

    Raises:
        ChartError: kubectl is missing or rejects it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        theirs = {"namespace": NAMESPACE, "namePrefix": PREFIX}
        labels = [{"pairs": {"app.kubernetes.io/managed-by": SERVICE}}]
        composed = composition(mode, on, path) | theirs | {"labels": labels}
        (path / "kustomization.yaml").write_text(json.dumps(composed))
        try:
            done = subprocess.run(
                ["kubectl", "kustomize", str(path)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            raise ChartError("kubectl is missing; next: https://kubernetes.io/docs/tasks/tools/") from None
    if done.returncode:
        raise ChartError(f"{mode} with {', '.join(sorted(on)) or 'nothing'}: {done.stderr.strip()}")
    objects = list(_read(done.stdout))
    settings = next(each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap")
    text = done.stdout.replace(settings, f"{settings.rpartition('-')[0]}-{HASH}")
    return {_title(each): keyed(each) for each in _read(text)}


def composition(mode: str, on: frozenset[str], folder: Path) -> dict[str, Any]:
    """The kustomization of a mode with components.

    Args:
        mode: serverless, standard or plain, which is standard without KServe.
        on: values of components.
        folder: where it will be, absolute.
    """
    names = [each.folder for each in COMPONENTS if each.value in on or (mode == "plain" and each.value == "service")]
    if mode == "plain":
        # This component copies the pod: after all components that change it, before the one that removes the rest.
        last = len(names) - ("no-namespace" in names)
        names.insert(last, "deployment")
    overlay = MANIFESTS / "overlays" / ("serverless" if mode == "serverless" else "standard")
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, folder)],
        "components": [os.path.relpath(MANIFESTS / "components" / name, folder) for name in names],
        # Helm would delete settings that existing pods still use.
        "configMapGenerator": [
            {
                "name": "nereid-settings",
                "behavior": "merge",
                "options": {"annotations": {"helm.sh/resource-policy": "keep"}},
            }
        ],
    }


def pack(name: str, files: Mapping[str, str]) -> bytes:
    """The archive that Helm installs: the same bytes for the same files."""
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path in sorted(files):
            data = files[path].encode()
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _read(text: str) -> Iterator[Any]:
    """Documents of YAML; by libyaml, where PyYAML has it: ten times as fast."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(yaml.load_all(text, Loader=loader))


def _with(component: Component) -> frozenset[str]:
    return frozenset({component.value, *component.needs, *component.after})


def _touching(node: Node, components: list[Component]) -> Iterator[frozenset[str]]:
    """Sets of components that change the same value."""
    if node.is_map():
        for _, child in node.inside().children():
            yield from _touching(child, components)
    elif len(node.changes) > 1:
        found = [each for each in components if each.value in {change.component for change in node.changes}]
        yield frozenset().union(*map(_with, found))


def _title(each: Mapping[str, Any]) -> str:
    return f"{each['kind']}/{each['metadata']['name'].removeprefix(PREFIX).removesuffix(f'-{HASH}')}"


def _chart() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "apiVersion": "v2",
        "name": project["name"],
        "description": project["description"],
        "type": "application",
        "version": project["version"],
        "appVersion": project["version"],
        "kubeVersion": f">={KUBERNETES}.0-0",
    }


Leaf = tuple[str, Any, Mapping[str, Any]]  # comment, default, schema


def _tree(used: Mapping[str, tuple[str, str] | None]) -> dict[str, Any]:
    """The values, nested as in values.yaml; a leaf is a `Leaf`."""
    tree: dict[str, Any] = {
        "mode": (
            "serverless: Knative, down to zero pods; standard: KServe without it; plain: a Deployment, without KServe.",
            "standard",
            {"enum": [*MODES]},
        )
    }
    components = {
        each.value: {"enabled": (each.comment, False, {"type": "boolean"})} for each in COMPONENTS if each.comment
    }
    for each in VALUES:
        *groups, name = each.value.split(".")
        if groups == ["settings"]:
            continue  # entries of a map that is itself a value
        at = tree
        for group in groups:
            at = at.setdefault(group, components.pop(group, {}) if at is tree else {})
        default = each.found if isinstance(each, Text) and each.kind == "default" else None
        at[name] = (each.comment, default, each.schema)
        if image := used[each.value]:
            at[name] = {
                "repository": (each.comment, image[0] if "." in image[0] else None, STRING),
                "tag": ("", image[1], TEXT),
                "digest": ("", None, {"type": ["string", "null"], "pattern": "^sha256:[0-9a-f]{64}$"}),
            }
    comment = "Off where a platform sets quota and limits of the namespace."
    tree["production"]["quota"] = {"enabled": (comment, True, {"type": "boolean"}), **tree["production"]["quota"]}
    return tree | components


def _values(tree: Mapping[str, Any], pad: str) -> Iterator[str]:
    for name, inner in tree.items():
        if isinstance(inner, dict):
            yield f"{pad}{name}:"
            yield from _values(inner, pad + "  ")
            continue
        comment, default, _ = inner
        yield from (f"{pad}# {line}" for line in comment.splitlines())
        yield f"{pad}{name}:" + ("" if default is None else f" {json.dumps(default)}")


def _schema(tree: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: _schema(inner) if isinstance(inner, dict) else inner[2] for name, inner in tree.items()}
    # Helm passes it to each subchart.
    inherited = {"global": {"type": "object"}} if "mode" in tree else {}
    given = [name for name, inner in tree.items() if isinstance(inner, dict) or inner[1] is not None]
    return {"type": "object", "additionalProperties": False, "required": given, "properties": properties | inherited}


if __name__ == "__main__":
    main()
