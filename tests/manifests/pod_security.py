"""The Pod Security Standard `restricted`, as of Kubernetes 1.32."""

from collections.abc import Iterator
from typing import Any

from tests.manifests.pod import containers_of
from tests.manifests.rendering import Object

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_PROFILES = {"RuntimeDefault", "Localhost"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip


def violations(pod: Object) -> Iterator[str]:
    """Violations for which a namespace that enforces `restricted` rejects a pod."""
    spec = pod["spec"]
    own = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of kind {', '.join(kinds)}"
    for sysctl in own.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for container in containers_of(pod):
        for violation in _of_container(container, own):
            yield f"container {container['name']}: {violation}"


def _of_container(container: Any, own: Any) -> Iterator[str]:
    context = container.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    if context.get("privileged"):
        yield "is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds the capabilities {capabilities['add']}"
    if context.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser", own.get("runAsUser")) == 0:
        yield "runs as root"
    if context.get("seccompProfile", own.get("seccompProfile", {})).get("type") not in _PROFILES:
        yield "has no seccomp profile"
    if context.get("procMount", "Default") != "Default":
        yield "has a procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "has a port of the host"
