"""Connections that leave a pod: to DNS; to S3 from pods that use it; to Triton from a separate transformer."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from tests.manifests import programs
from tests.manifests.environment import environment_of
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.programs import SYNCHRONISER, TRANSFORMER, TRITON
from tests.manifests.rendering import Object, Render, title
from tests.manifests.rules.credentials import may_use_s3
from tests.manifests.rules.selectors import matches

_DNS = 53
# Metadata services that return the credentials of a node or a pod: EC2 and most others, ECS, EKS Pod Identity.
_METADATA = [
    ip_address(address)
    for address in ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")
]
_POD_IDENTITY = ip_network("169.254.170.23/32")  # the name in manifests/README.md, for pods that use S3
# AWS' widest IPv4 range for S3 is a /15; whole private networks are /8 and /12.
_NARROWEST = {4: 13, 6: 32}
_PORTS_OF_TRITON_S_POD = {8001, 8003}
# Settings with the address of a service beside S3, and its port where they have none.
_ADDRESS_SETTINGS = {"OTEL_EXPORTER_OTLP_ENDPOINT": 4318, "HTTPS_PROXY": 3128}


def egress_is_limited_to_peers_and_ports(render: Render) -> Iterator[str]:
    """Each rule has ports and peers; no peer is every pod, a wide network, or the metadata service of a cloud."""
    for policy in render.of_kind("NetworkPolicy"):
        for rule in _rules(policy):
            if not rule.get("to") or not rule.get("ports"):
                yield f"{title(policy)}: {rule}, expected peers and ports"
            for peer in rule.get("to", []):
                yield from (f"{title(policy)}: {fault}" for fault in _faults(peer, _ports(rule)))


def pods_reach_what_they_use(render: Render) -> Iterator[str]:
    """S3 is reached from the pods that use it and from no others; a separate transformer reaches Triton's pod."""
    for pod in pods_of(render):
        rules = [rule for policy in _policies_of(pod, render) for rule in _rules(policy)]
        runs = {programs.program_of(each) for each in containers_of(pod)}
        beyond = [rule for rule in rules if _ports(rule) != {_DNS}]
        inside = {port for rule in beyond if _leads_to_triton(rule, render) for port in _ports(rule)}
        if not _policies_of(pod, render):
            continue  # another rule has pods that must be isolated
        if may_use_s3(pod) and not beyond:
            yield f"{title(pod)}: uses S3, and reaches DNS alone"
        if TRANSFORMER in runs and not runs & {TRITON, SYNCHRONISER}:
            if inside != _PORTS_OF_TRITON_S_POD:
                yield f"{title(pod)}: reaches ports {sorted(inside)} of Triton's pod, expected {_PORTS_OF_TRITON_S_POD}"
            beyond = [rule for rule in beyond if not _leads_to_triton(rule, render)]
        reached = {port for rule in rules for port in _ports(rule)}
        for name, port in _ports_by_setting(pod, render).items():
            if port not in reached:
                yield f"{title(pod)}: {name} is at port {port}, to which no NetworkPolicy opens egress"
            beyond = [rule for rule in beyond if _ports(rule) != {port}]
        if beyond and not may_use_s3(pod):
            yield f"{title(pod)}: does not use S3, and reaches {beyond}"


def _ports_by_setting(pod: Object, render: Render) -> dict[str, int]:
    """Ports by the setting that has them."""
    variables = [environment_of(each, pod, render) for each in containers_of(pod)]
    return {
        name: urlsplit(each[name]).port or default
        for each in variables
        for name, default in _ADDRESS_SETTINGS.items()
        if each.get(name)
    }


def _policies_of(pod: Object, render: Render) -> list[Object]:
    """Its policies with egress rules."""
    labels = pod["metadata"].get("labels", {})
    policies = render.of_kind("NetworkPolicy")
    return [
        each
        for each in policies
        if matches(each["spec"]["podSelector"], labels) and "Egress" in each["spec"].get("policyTypes", [])
    ]


def _rules(policy: Object) -> list[Any]:
    return list(policy["spec"].get("egress", []))


def _ports(rule: Any) -> set[Any]:
    return {port.get("port") for port in rule.get("ports", [])}


def _leads_to_triton(rule: Any, render: Render) -> bool:
    """Whether each peer selects pods of our namespace, Triton's among them."""
    labels = [
        pod["metadata"].get("labels", {})
        for pod in pods_of(render)
        if TRITON in {programs.program_of(each) for each in containers_of(pod)}
    ]
    return all(
        set(peer) == {"podSelector"} and any(matches(peer["podSelector"], each) for each in labels)
        for peer in rule["to"]
    )


def _faults(peer: Any, ports: set[Any]) -> Iterator[str]:
    if "ipBlock" not in peer:
        if not any(peer.get("podSelector", {}).values()):
            yield f"{peer} selects every pod of the cluster"
        return
    network = ip_network(peer["ipBlock"]["cidr"])
    kept_out = [ip_network(each) for each in peer["ipBlock"].get("except", [])]
    if network.prefixlen < _NARROWEST[network.version]:
        yield f"{network} is wide open, expected S3's addresses"
    for address in _METADATA:
        if network == _POD_IDENTITY and ports == {80}:
            continue  # EKS Pod Identity: without the token of a container it returns nothing
        if address in network and not any(address in each for each in kept_out):
            yield f"{network} has {address}, a metadata service that returns credentials"
    if network.is_link_local and ports != {_DNS} and not (network == _POD_IDENTITY and ports == {80}):
        yield f"{network} at ports {sorted(ports)}, expected DNS alone of what is local to the node"


RULES = (egress_is_limited_to_peers_and_ports, pods_reach_what_they_use)
