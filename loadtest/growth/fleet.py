"""How many pods and nodes a rate takes, and their price. Pure arithmetic."""

import math
from dataclasses import dataclass

# Requests of a pod of manifests/overlays/production, whose Triton gets its whole limit of memory; a test compares them.
POD_CPUS, POD_GIB = 2.6, 4.75
# Of a node, what the kubelet, the system and DaemonSets keep for themselves.
_SYSTEM_CPUS, _SYSTEM_GIB = 0.5, 1.5
_PODS_PER_NODE = 110  # the kubelet's maxPods


@dataclass(frozen=True)
class Headroom:
    """Why there are more pods than the rate divided by that of one.

    Attributes:
        utilisation: of the rate of a pod, what it gets on average: requests arrive unevenly.
        burst: highest rate over the mean that must be served while more pods start.
        zones: of which one may fail, with its share of the pods; 1: none.
        surge: share of the pods that a rolling update has beside them.
    """

    utilisation: float
    burst: float
    zones: int
    surge: float

    @property
    def factor(self) -> float:
        """Pods that serve, over those that would be enough without any of it."""
        lost = self.zones / (self.zones - 1) if self.zones > 1 else 1.0
        return self.burst * lost / self.utilisation


@dataclass(frozen=True)
class Node:
    """The size of a node.

    Attributes:
        cpus: vCPUs.
        gib: memory.
    """

    cpus: float
    gib: float

    @property
    def pods(self) -> int:
        """Pods that fit, 0 where none does."""
        return max(
            0,
            min(
                math.floor((self.cpus - _SYSTEM_CPUS) / POD_CPUS),
                math.floor((self.gib - _SYSTEM_GIB) / POD_GIB),
                _PODS_PER_NODE,
            ),
        )


@dataclass(frozen=True)
class Fleet:
    """What serves a rate.

    Attributes:
        rate: requests/s, on average.
        pods: that serve.
        surged: pods during a rolling update.
        nodes: for those.
        cpus: vCPUs of the nodes.
        gib: memory of the nodes.
    """

    rate: float
    pods: int
    surged: int
    nodes: int
    cpus: float
    gib: float

    def per_million(self, per_hour: float) -> float:
        """Price of a million requests where a price per hour is paid for the mean rate."""
        return per_hour / (self.rate * 3600) * 1e6


def plan(rate: float, per_pod: float, headroom: Headroom, node: Node) -> Fleet:
    """The pods for a rate: at least one for each zone.

    Args:
        rate: requests/s on average.
        per_pod: that one pod serves within the limit of its latency, by `make capacity`.
        headroom: see there.
        node: on which at least one pod fits.
    """
    pods = max(headroom.zones, math.ceil(rate * headroom.factor / per_pod - 1e-9))
    surged = pods + math.ceil(pods * headroom.surge - 1e-9)
    nodes = math.ceil(surged / node.pods)
    return Fleet(rate, pods, surged, nodes, nodes * node.cpus, nodes * node.gib)


def gpus(rate: float, per_gpu: float, headroom: Headroom) -> int:
    """GPUs for a rate, each with a pod of its own, during a rolling update."""
    serving = max(headroom.zones, math.ceil(rate * headroom.factor / per_gpu - 1e-9))
    return serving + math.ceil(serving * headroom.surge - 1e-9)
