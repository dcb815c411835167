"""Environment of a container, as the kubelet sets it."""

import math
import re
from decimal import Decimal
from typing import Any

from tests.manifests.pod import containers_of
from tests.manifests.rendering import Object, Render

SECRET = "a-secret"

_REFERENCE = re.compile(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_UNITS = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)} | {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
}  # fmt: skip


def quantity(value: str | float) -> Decimal:
    """A number of Kubernetes' quantities: `500m`, `4Gi`, `2`."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(value)).groups()  # type: ignore[union-attr]  # a fault
    return Decimal(number) * _UNITS[unit]


def environment_of(container: Any, pod: Object, render: Render) -> dict[str, str]:
    """Variables by name; values of Secrets are SECRET, and values of a running cluster are empty."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            settings = render.named("ConfigMap", source["configMapRef"]["name"])
            prefix = source.get("prefix", "")
            variables |= {f"{prefix}{name}": value for name, value in (settings or {}).get("data", {}).items()}
    for each in container.get("env", []):
        variables[each["name"]] = expand(_value(each, container, pod, render), variables)
    return variables


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace `$(NAME)` like the kubelet: an unknown name stays."""
    return _REFERENCE.sub(lambda found: variables.get(found[1], found[0]), text)


def unknown_names(text: str, variables: dict[str, str]) -> list[str]:
    """Names in `$(NAME)` without a definition."""
    return [name for name in _REFERENCE.findall(text) if name not in variables]


def _value(variable: Any, container: Any, pod: Object, render: Render) -> str:
    source = variable.get("valueFrom", {})
    if "secretKeyRef" in source:
        return SECRET
    if "configMapKeyRef" in source:
        settings = render.named("ConfigMap", source["configMapKeyRef"]["name"]) or {}
        return str(settings.get("data", {}).get(source["configMapKeyRef"]["key"], ""))
    if "resourceFieldRef" in source:
        return _resource({"containerName": container["name"]} | source["resourceFieldRef"], pod)
    return str(variable.get("value", ""))


def _resource(reference: Any, pod: Object) -> str:
    container: Any = next((each for each in containers_of(pod) if each["name"] == reference["containerName"]), {})
    kind, _, name = reference["resource"].partition(".")
    amount = container.get("resources", {}).get(kind, {}).get(name)
    if amount is None:
        return ""
    # Kubernetes rounds up: half a CPU in units of one is 1.
    return str(math.ceil(quantity(amount) / (quantity(reference.get("divisor", 1)) or 1)))
