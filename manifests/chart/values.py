"""What a user of the chart may set, and where it goes: in place of a text of the manifests, or over what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
STRING: Schema = {"type": ["string", "null"]}
NUMBER: Schema = {"type": ["integer", "null"], "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
MAP: Schema = {"type": ["object", "null"]}
STRINGS: Schema = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
LIST: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
_CIDR: Schema = {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}
# Never empty: a rule without addresses would let out to all.
CIDRS: Schema = {"type": ["array", "null"], "minItems": 1, "items": _CIDR}
MODES = ("serverless", "standard", "plain")


@dataclass(frozen=True)
class Component:
    """One of manifests/components.

    Attributes:
        value: whose `enabled` it is.
        comment: what it brings.
        needs: others that it brings with it.
        after: others that it changes where they are on.
        modes: where it has a place.
    """

    value: str
    comment: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("standard", "plain")

    @property
    def folder(self) -> str:
        """Its name in manifests/components."""
        return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.value)


@dataclass(frozen=True)
class Text:
    """A value in place of a text or a number of the manifests, wherever that is all that a field holds.

    Attributes:
        value: its path in values.yaml.
        comment: what it is.
        found: what stands in the manifests; of an image, without its tag.
        kind: `default`: what stands there is the default; `required`: it is an example; `optional`: it is one, and
            without a value the field goes; `each`: required, a list, each entry makes an item like it; `image`.
        schema: of JSON schema.
        within: the object, `<kind>/<name>`, where the same text means something else in others.
    """

    value: str
    comment: str
    found: str | int
    kind: str = "default"
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    within: str = ""


@dataclass(frozen=True)
class Slot:
    """A value over what the manifests say in some places: maps are merged, lists too, by the names of their items.

    Attributes:
        value: its path in values.yaml.
        comment: what it is.
        schema: of JSON schema.
        places: `<kind>/<name>/<fields>`, items of lists by their names; nothing need be there.
        follows: a field that is there must equal a part of another value.
    """

    value: str
    comment: str
    schema: Schema
    places: tuple[str, ...]
    follows: bool = False


# In the order of a kustomization: what changes the pod, then the ways in.
COMPONENTS = (
    Component("production", "2 to 8 pods over zones and nodes, a quota, limits for containers that others add."),
    Component("gpu", "A GPU for each pod, and a volume for engines."),
    Component("keda", "Scaling by Triton's queues.", modes=("standard",)),
    Component("aws", "A role of the account in place of a Secret with S3's keys.", modes=MODES),
    Component("keys", "API keys for clients.", modes=MODES),
    Component("caBundle", "Certificate authorities of yours, for S3 and the collector.", modes=MODES),
    Component("proxy", "S3 through a proxy for HTTP.", modes=MODES),
    Component("otlp", "Spans to a collector in the cluster.", modes=MODES),
    Component("service", "A Service before the pods, REST at 80, gRPC at 8081; plain always has it."),
    Component("ipv6", "Listens by IPv6 too: for pods without an address of IPv4.", modes=MODES),
    Component("headless", "A name for all ready pods, for gRPC clients that go round them."),
    Component("ingress", "An Ingress for REST, and the Service that it needs.", needs=("service",)),
    Component("alb", "What AWS' load balancer controller wants of an Ingress.", needs=("service", "ingress")),
    Component("albGrpc", "gRPC by the same load balancer.", needs=("service", "ingress", "alb")),
    Component("httpRoute", "HTTPRoute and GRPCRoute, and the Service that they need.", needs=("service",)),
    Component("outside", "Private networks may come in, for NodePort and LoadBalancer.", needs=("service",)),
    Component("noNamespace", "Quota and limits are a platform's: production without its own.", after=("production",)),
)

_INGRESS = "Ingress/nereid-http"
_SERVED = "InferenceService/nereid/spec/predictor"
_DEPLOYED = "Deployment/nereid/spec/template"
_SCALER = "HorizontalPodAutoscaler/nereid/spec"
_PODS = (_SERVED, f"{_DEPLOYED}/spec")


def _of_container(value: str, name: str, image: str) -> tuple[Text | Slot, ...]:
    places = tuple(f"{pod}/containers/{name}" for pod in _PODS)
    resources = (
        "Over those of the manifests, such as {limits: {memory: 8Gi}}; a request that equals its limit is set too."
    )
    return (
        Text(f"{value}.image", "With your registry; a digest stands for the tag.", image, "image"),
        Slot(f"{value}.resources", resources, MAP, tuple(f"{each}/resources" for each in places)),
        Slot(
            f"{value}.env",
            "More variables; one of the same name is changed.",
            LIST,
            tuple(f"{each}/env" for each in places),
        ),
    )


def _of_pod(name: str, comment: str, schema: Schema) -> Slot:
    return Slot(f"pod.{name}", comment, schema, tuple(f"{pod}/{name}" for pod in _PODS))


VALUES: tuple[Text | Slot, ...] = (
    Slot(
        "settings",
        "Of the synchroniser and the transformer, over manifests/base/settings.env: PREDICTOR_REPOSITORY and\n"
        'AWS_REGION above all. Texts: {TRANSFORMER_MAX_IN_FLIGHT: "8"}.',
        STRINGS,
        ("ConfigMap/nereid-settings/data",),
    ),
    Slot("settings.TRANSFORMER_MAX_IN_FLIGHT", "", NUMBER, (f"{_SERVED}/containerConcurrency",), follows=True),
    Text(
        "s3.addresses",
        "A list of the CIDRs of S3: a network policy knows no names.",
        "192.0.2.0/24",
        "each",
        CIDRS,
        within="NetworkPolicy/nereid-s3",
    ),
    Text("s3.port", "Where S3 listens.", 443, schema=PORT),
    Text("s3.secret", "Your Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", "nereid-s3"),
    *_of_container("triton", "kserve-container", "nvcr.io/nvidia/tritonserver"),
    Slot(
        "triton.resources.limits.cpu",
        "",
        STRING,
        (f"{_SERVED}/containers/synchroniser/env/PREDICTOR_CPUS/value",),
        follows=True,
    ),
    Text(
        "triton.secret",
        "Your Secret with what Triton and the synchroniser share, as its entry `secret`.",
        "nereid-triton",
    ),
    *_of_container("synchroniser", "synchroniser", "nereid/predictor"),
    *_of_container("transformer", "transformer-container", "nereid/transformer"),
    Slot(
        "transformer.resources.limits.cpu",
        "",
        STRING,
        (f"{_SERVED}/containers/transformer-container/env/TRANSFORMER_THREADS/value",),
        follows=True,
    ),
    Slot(
        "replicas.min",
        "Pods at least; empty: as the mode and its components say.",
        NUMBER,
        (f"{_SERVED}/minReplicas", f"{_SCALER}/minReplicas"),
    ),
    Slot("replicas.max", "Pods at most.", NUMBER, (f"{_SERVED}/maxReplicas", f"{_SCALER}/maxReplicas")),
    Slot(
        "replicas.target",
        "What a pod is to have: percent of its CPU; in serverless requests at once. Not with keda.",
        NUMBER,
        (f"{_SERVED}/scaleTarget", f"{_SCALER}/metrics/Resource/resource/target/averageUtilization"),
    ),
    _of_pod(
        "nodeSelector", "Beside the manifests'. On Knative only with its feature flag, as all but annotations.", STRINGS
    ),
    _of_pod("tolerations", "Beside the manifests'.", LIST),
    _of_pod("affinity", "As Kubernetes has it.", MAP),
    _of_pod("imagePullSecrets", "Such as [{name: registry}].", LIST),
    _of_pod("priorityClassName", "The name of a class of yours.", STRING),
    Slot(
        "pod.annotations",
        "Beside the manifests'.",
        STRINGS,
        (f"{_SERVED}/annotations", f"{_DEPLOYED}/metadata/annotations"),
    ),
    Slot("pod.labels", "Beside the manifests'.", STRINGS, (f"{_SERVED}/labels", f"{_DEPLOYED}/metadata/labels")),
    Slot(
        "inferenceService.annotations",
        "What KServe and Knative read.",
        STRINGS,
        ("InferenceService/nereid/metadata/annotations",),
    ),
    Slot(
        "serviceAccount.annotations", "Of the pods' account.", STRINGS, ("ServiceAccount/nereid/metadata/annotations",)
    ),
    Slot("networkPolicy.ingress", "More rules: who else may come in.", LIST, ("NetworkPolicy/nereid/spec/ingress",)),
    Slot("networkPolicy.egress", "More rules: where else it may go.", LIST, ("NetworkPolicy/nereid-s3/spec/egress",)),
    Text("networkPolicy.prometheus", "The namespace of Prometheus.", "monitoring"),
    Text(
        "host",
        "The name that clients use, where there is an Ingress or a route.",
        "vision.example.com",
        "required",
        STRING,
    ),
    Slot("production.quota", "Over its `hard`: raise it with replicas.max.", MAP, ("ResourceQuota/nereid/spec/hard",)),
    Slot("gpu.volume", "Over the claim: {storageClassName: efs}.", MAP, ("PersistentVolumeClaim/nereid-engines/spec",)),
    Text("keda.prometheus", "Prometheus, as KEDA reaches it.", "http://prometheus-operated.monitoring.svc:9090"),
    Text(
        "aws.roleArn",
        "The role that may read the bucket; nothing with EKS Pod Identity, where an association names it.",
        "arn:aws:iam::111122223333:role/nereid-models-read",
        "optional",
        STRING,
    ),
    Text("keys.secret", "Your Secret with the lines of `make key`, as its entry `keys`.", "nereid-keys"),
    Text("caBundle.configMap", "Your ConfigMap with ca.crt.", "nereid-ca"),
    Text("proxy.url", "The URL of the proxy.", "http://proxy.example.com:3128", "required", STRING),
    Text("proxy.addresses", "A list of the CIDRs of the proxy.", "192.0.2.10/32", "each", CIDRS),
    Text("proxy.port", "As in its URL.", 3128, schema=PORT),
    Text("otlp.endpoint", "OTLP over http/protobuf.", "http://otel-collector.observability.svc:4318"),
    Text("otlp.namespace", "Of the collector.", "observability"),
    Text("otlp.name", "Its pods' label app.kubernetes.io/name.", "opentelemetry-collector"),
    Text("otlp.port", "As in the endpoint.", 4318, schema=PORT),
    Slot("service.annotations", "Those of your cloud.", STRINGS, ("Service/nereid/metadata/annotations",)),
    Slot("service.spec", "Over its spec: {type: LoadBalancer}.", MAP, ("Service/nereid/spec",)),
    Slot("ingress.annotations", "Over ingress-nginx's.", STRINGS, ("Ingress/nereid-http/metadata/annotations",)),
    Slot("ingress.className", "Nothing: the default.", STRING, ("Ingress/nereid-http/spec/ingressClassName",)),
    Slot("ingress.tls", "Such as [{secretName: tls, hosts: [<host>]}].", LIST, ("Ingress/nereid-http/spec/tls",)),
    Text(
        "alb.certificateArn",
        "The certificate of the host.",
        "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000",
        "required",
        STRING,
    ),
    Text("alb.addresses", "A list of the CIDRs of the VPC.", "198.51.100.0/24", "each", CIDRS),
    Text("httpRoute.gateway.name", "Your Gateway.", "kserve-ingress-gateway"),
    Text("httpRoute.gateway.namespace", "Its namespace.", "kserve"),
)
