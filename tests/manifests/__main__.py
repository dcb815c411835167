"""Render and check every folder of the manifests, or folders of a user: `python -m tests.manifests` (`make manifests`).

Prints a table, and the faults below it; exits with 1 where there are any.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.manifests.pod import components_of, mode_of, pod_of
from tests.manifests.rendering import (
    KUBECTL_MISSING,
    Render,
    RenderError,
    find_folders,
    has_kubectl,
    render,
    render_foreign,
    title,
)
from tests.manifests.rules import RULES
from tests.manifests.rules.deployments import bounds_of
from tests.manifests.rules.objects import containers_have_an_image
from tests.manifests.schemas import CRDS, CRDS_MISSING, KUBERNETES, find_faults


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; exit with 1 and the faults where there are any."""
    parser = argparse.ArgumentParser(prog="make manifests", description=__doc__.partition("\n")[0])
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="a folder of your own, anywhere")
    parser.add_argument("--secrets", default="", help="names of Secrets that you create, beyond those of the manual")
    options = parser.parse_args(arguments)
    if not has_kubectl():
        sys.exit(f"error: {KUBECTL_MISSING}")
    for folder in options.overlay:
        if not any((folder / name).is_file() for name in ("kustomization.yaml", "kustomization.yml", "Kustomization")):
            sys.exit(f"error: OVERLAY: got {folder}, expected a folder with a kustomization.yaml")
    secrets = options.secrets.split()
    rendering: dict[str, Callable[[], Render]] = {
        str(folder): partial(render_foreign, folder, secrets) for folder in options.overlay
    } or {name: partial(render, name) for name in find_folders()}
    table = Table("overlay", "objects", "valid", "notes", title="Manifests")
    faults: list[str] = []
    for name, make in rendering.items():
        try:
            rendered = make()
        except RenderError as exc:
            faults.append(f"{name}: {exc}")
            table.add_row(name, "-", "no", "does not render")
            continue
        found = list(judge(rendered))
        faults += [f"{name}: {fault}" for fault in found]
        table.add_row(name, str(len(rendered.objects)), "no" if found else "yes", "\n".join(notes(rendered)))
    console = Console(width=120 if not sys.stdout.isatty() else None)
    console.print(table)
    print(f"strict schemas of Kubernetes {KUBERNETES}, KServe, Knative, KEDA, Prometheus; {len(RULES)} rules")
    if not CRDS.is_dir():
        print(CRDS_MISSING)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(f"error: {len(faults)} faults in the manifests")


def judge(rendered: Render) -> Iterator[str]:
    """Faults against the schemas; where there are none, against the rules."""
    found = [f"{title(each)}: {fault}" for each in rendered.objects for fault in find_faults(each)]
    found = found or list(containers_have_an_image(rendered))  # the cause of many others
    # Rules read fields that the schemas require.
    yield from found or (f"{rule.__name__.replace('_', ' ')}: {fault}" for rule in RULES for fault in rule(rendered))


def notes(rendered: Render) -> Iterator[str]:
    """Mode, scaling and split of what serves; for other folders the kinds of their objects."""
    services = list(rendered.of_kind("InferenceService"))
    for service in services:
        for name, component in components_of(service):
            replicas = f"{component.get('minReplicas', 1)} to {component.get('maxReplicas', 'any')}"
            pod = pod_of(service, name, component)["metadata"]["name"]
            yield f"{mode_of(service)}: {pod}, {replicas} pods{_scaled_by(component)}"
        for each in service["spec"].get("canary", []):
            yield f"{each['trafficPercent']} % to {each['predictor'].get('name')}"
        if percent := service["spec"]["predictor"].get("canaryTrafficPercent"):
            yield f"{percent} % to the newest revision"
    scalers = list(rendered.of_kind("HorizontalPodAutoscaler", "ScaledObject"))
    for scaler in scalers:
        lowest, most = bounds_of(scaler)
        yield f"{scaler['spec']['scaleTargetRef']['name']}, {lowest} to {most} pods by {scaler['kind']}"
    if not services and not scalers:
        yield ", ".join(dict.fromkeys(str(each["kind"]) for each in rendered.objects))


def _scaled_by(component: Any) -> str:
    if "autoScaling" in component:
        return " by KEDA"
    if "scaleMetric" in component:
        return f" by {component['scaleMetric']} {component.get('scaleTarget', '')}".rstrip()
    return ""


if __name__ == "__main__":
    main()
