"""What breaks on the way to a rate: each limit with what uses it, and the rate at which it is reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.growth.fleet import Headroom, Node

_KUBERNETES = "https://github.com/kubernetes/community/blob/master/sig-scalability/configs-and-limits/thresholds.md"
_SERIES, _SERIES_EACH = 145, 176  # of a pod, and of each model that gets requests; see docs/growth.md
_GROWTH = 0.5  # more nodes than before, whose images are pulled at once


@dataclass(frozen=True)
class Load:
    """What a pod and a request use, measured where docs/growth.md says so.

    Attributes:
        per_pod: requests/s of one pod.
        headroom: of the fleet.
        node: its size.
        poll_s: PREDICTOR_POLL_S.
        pages: thousands of objects in the repository, rounded up.
        files: that a pod fetches of a new version.
        models: that the pod serves, each of which clients use.
        log_bytes: of the log for a request, with LOG_FORMAT=json.
        body_bytes: of a request and its response.
        latency_s: mean.
        image_gb: that a new node pulls.
        gbps: bandwidth of the ingress, and of the registry.
    """

    per_pod: float
    headroom: Headroom
    node: Node
    poll_s: float
    pages: int
    files: int
    models: int
    log_bytes: float
    body_bytes: float
    latency_s: float
    image_gb: float
    gbps: float

    @property
    def pods(self) -> float:
        """Pods for each request/s; those of a rolling update are for a while only and left out."""
        return self.headroom.factor / self.per_pod

    @property
    def series(self) -> int:
        """Of the metrics of one pod, of all three containers."""
        return _SERIES + self.models * _SERIES_EACH


@dataclass(frozen=True)
class Limit:
    """One of them.

    Attributes:
        name: what is used.
        use: of it, for each request/s.
        unit: of use and limit.
        limit: the most.
        inputs: what use is computed from.
        source: of the limit.
        remedy: what to do.
    """

    name: str
    use: float
    unit: str
    limit: float
    inputs: str
    source: str
    remedy: str

    @property
    def rate(self) -> float:
        """Requests/s at which it is reached."""
        return self.limit / self.use


def find(load: Load) -> list[Limit]:
    """All limits; the first to be reached comes first."""
    return sorted([*_of_pods(load), *_of_the_repository(load), *_of_requests(load)], key=lambda limit: limit.rate)


def _of_pods(load: Load) -> Sequence[Limit]:
    pods, nodes = load.pods, load.pods / load.node.pods
    each = f"{pods:.3g} pods for each request/s"
    return [
        Limit(
            "maxReplicas of overlays/production", pods, "pods", 8, each,
            "manifests/components/production/inferenceservice.yaml", "raise maxReplicas with the quota",
        ),
        Limit(
            "memory of its quota", pods, "pods", 13, f"{each}, of 4.75 GiB each",
            "manifests/components/production/resourcequota.yaml", "raise the quota with maxReplicas",
        ),
        Limit(
            "addresses of a /24", pods + nodes, "addresses", 251, f"{each}, and its nodes",
            "https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html",
            "larger subnets for pods, one for each zone, or IPv6",
        ),
        Limit(
            "endpoints of a Service", pods, "endpoints", 250, each, _KUBERNETES,
            "a Gateway that sends to the pods themselves, nftables or IPVS in place of iptables",
        ),
        Limit(
            "addresses in Endpoints", pods, "endpoints", 1000, each,
            "https://kubernetes.io/docs/concepts/services-networking/service/#over-capacity-endpoints",
            "only what reads EndpointSlices in front",
        ),
        Limit(
            "targets of an ALB", pods, "targets", 1000, each,
            "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html",
            "a higher quota of AWS, or an Envoy behind an NLB",
        ),
        Limit(
            "pods of a namespace", pods, "pods", 3000, each, _KUBERNETES,
            "several installations, each in a cluster of its own: one fails alone",
        ),
        Limit(
            "nodes of a cluster", nodes, "nodes", 5000, f"{load.node.pods} pods on a node", _KUBERNETES,
            "larger nodes, several clusters",
        ),
        Limit(
            "series of a Prometheus of 8 GiB", pods * load.series, "series", 8 * 2**30 / (2.5e9 / 300_000),
            f"{load.series:,} series of a pod; 2.5 GB for 300,000",
            "https://grafana.com/docs/mimir/latest/manage/run-production-environment/planning-capacity/",
            "more memory, drop histograms that no panel has, Prometheus for each installation",
        ),
        Limit(
            "registry: pulls in 300 s", nodes * _GROWTH * load.image_gb * 8, "Gbit", load.gbps * 300,
            f"half as many nodes more, {load.image_gb:g} GB each, {load.gbps:g} Gbit/s", "calculated",
            "the image on the nodes' own disk image, a mirror for each zone, the small predictor",
        ),
    ]  # fmt: skip


def _of_the_repository(load: Load) -> Sequence[Limit]:
    source = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html"
    return [
        Limit(
            "S3: LIST/s", load.pods * load.pages / load.poll_s, "requests/s", 5500,
            f"{load.pages} LIST of each pod every {load.poll_s:g} s", source, "a larger POLL_S",
        ),
        Limit(
            "S3: GET/s of a publish", load.pods * load.files / load.poll_s, "requests/s", 5500,
            f"{load.files} files to each pod within {load.poll_s:g} s", source,
            "a larger POLL_S; what fails is fetched again",
        ),
    ]  # fmt: skip


def _of_requests(load: Load) -> Sequence[Limit]:
    return [
        Limit(
            "logs into a Loki", load.log_bytes / 2**20, "MiB/s", 4, f"{load.log_bytes:.0f} bytes for each request",
            "https://grafana.com/docs/loki/latest/configure/#limits_config", "raise ingestion_rate_mb, or log a sample",
        ),
        Limit(
            "bandwidth of one ingress", load.body_bytes * 8 / 1e9, "Gbit/s", load.gbps,
            f"{load.body_bytes / 1000:.0f} kB for each request", "calculated",
            "several ingress nodes, a load balancer of the cloud; smaller images",
        ),
        Limit(
            "connections of one nginx worker", 2 * load.latency_s, "connections", 16384,
            f"{load.latency_s * 1000:.0f} ms each, to the client and to the pod",
            "https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/configmap/",
            "more workers, more replicas of the ingress",
        ),
    ]  # fmt: skip
