"""Paths and addresses of the cluster."""

import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Short, because the path of a socket has 107 bytes at most; outside the checkout, because images are gigabytes.
STATE = Path(os.environ.get("CLUSTER_STATE") or "/var/lib/nereid-cluster").absolute()
# Marks the folder as a cluster's: nothing else is ever removed.
MARK = STATE / ".nereid-cluster"
# Programs built from cluster/modules; kept between clusters.
BUILT = STATE / "bin"
# Link to the user's folder (CLUSTER_BIN) of the start.
GIVEN_LINK = STATE / "given"
# Manifests and programs of other projects, in its folders `manifests` and `bin`: cluster/README.md lists them.
GIVEN = Path(os.environ.get("CLUSTER_BIN") or GIVEN_LINK).absolute()

MACHINES_CIDR = "10.240.0.0/24"
PODS_CIDR = "10.244.0.0/16"
SERVICES_CIDR = "10.96.0.0/16"
API_SERVICE = IPv4Address("10.96.0.1")
DNS_SERVICE = IPv4Address("10.96.0.10")
# Services of type LoadBalancer: clients reach them through node-1.
GATEWAYS_CIDR = "10.240.1.0/24"
KNATIVE_GATEWAY = IPv4Address("10.240.1.1")
GATEWAY = IPv4Address("10.240.1.2")
INTERCEPTOR = IPv4Address("10.240.1.3")
DOMAIN = "cluster.local"
API_PORT = 6443


class Host(NamedTuple):
    """A machine of the cluster: namespaces of its own, for processes, mounts and the network.

    Attributes:
        name: also its host name, and that of its node.
        address: on the bridge between the machines.
        pods: network of its pods; empty where it has none.
    """

    name: str
    address: IPv4Address
    pods: str = ""

    @property
    def folder(self) -> Path:
        """The folder with its files."""
        return STATE / self.name


# Outside the cluster: the clients, S3, DNS, and the bridge that connects all machines.
OUTSIDE = Host("outside", IPv4Address("10.240.0.1"))
NODES = (
    Host("node-1", IPv4Address("10.240.0.11"), "10.244.1.0/24"),
    Host("node-2", IPv4Address("10.240.0.12"), "10.244.2.0/24"),
)
# The control plane runs on the first node.
CONTROL = NODES[0]
HOSTS = (OUTSIDE, *NODES)
KUBECONFIG = STATE / "admin.kubeconfig"


class ClusterError(Exception):
    """The cluster cannot be started or changed; the message has the reason and the next step."""
