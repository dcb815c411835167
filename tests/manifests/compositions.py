"""Compositions of components, as in a user's overlay."""

from pathlib import Path
from typing import Any

from tests.manifests.rendering import MANIFESTS, Render, render_over, with_components

COMPONENTS = MANIFESTS / "components"

OF_THE_POD = ("gpu", "production", "aws", "keys", "corporate", "signed", "ipv6")
# KServe's scaler does not apply to a Deployment; components for ingress exclude each other.
_SECRETS = ("external-secrets", "external-secrets/s3")
WITH_KSERVE = (*OF_THE_POD, *_SECRETS, "keda", "service", "ingress", "alb", "alb-grpc", "http-route")
WITHOUT = (*OF_THE_POD, *_SECRETS, "deployment", "service", "headless", "ingress", "http-route")
# The image for CPUs in place of the GPU.
ON_CPU = tuple("cpu-triton" if name == "gpu" else name for name in WITH_KSERVE)
_FILES = {
    "configMapGenerator": [
        {"name": "nereid-ca", "literals": ["ca.crt=x"]},
        {"name": "nereid-signers", "literals": ["release.pub=x"]},
    ]
}
# The quota of production is for CPU pods.
_ROOM = """
- op: add
  path: /spec/hard
  value: {}
"""


def combine(names: tuple[str, ...], folder: Path, namespace: str = "vision") -> Render:
    """Render overlays/standard with components, namespace and prefix.

    Args:
        names: of the components, in order.
        folder: for the kustomization; created where it is missing.
        namespace: of all objects.

    Raises:
        RenderError: see `rendering.render`.
    """
    folder.mkdir(exist_ok=True)
    quota = [{"target": {"kind": "ResourceQuota"}, "patch": _ROOM}]
    head: dict[str, Any] = {"namespace": namespace, "namePrefix": "acme-", "patches": quota, **_FILES}
    return render_over("overlays/standard", head | with_components(folder, *names), folder)
