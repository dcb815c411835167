"""Values of the chart and their places: they replace a text of the manifests, or are merged over their fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from environment.variables import variable
from predictor.settings import Settings
from transformer.settings import OpenTelemetrySettings, TransformerSettings

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
STRING: Schema = {"type": ["string", "null"], "minLength": 1}
NUMBER: Schema = {"type": ["integer", "null"], "minimum": 0}
POSITIVE: Schema = {**NUMBER, "minimum": 1}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
MAP: Schema = {"type": ["object", "null"]}
STRINGS: Schema = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
LIST: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
_CIDR: Schema = {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}
# Never empty: a rule without addresses would allow all.
CIDRS: Schema = {"type": ["array", "null"], "minItems": 1, "items": _CIDR}
NAME: Schema = {"type": ["string", "null"], "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", "maxLength": 253}
URL: Schema = {"type": ["string", "null"], "pattern": "^https?://[^/]"}
ARN: Schema = {"type": ["string", "null"], "pattern": "^arn:"}
# Variables of libraries: boto3's, OpenTelemetry's, and those of proxies.
_FOREIGN = "^((AWS|OTEL|SENTRY)_[A-Z0-9_]+|(HTTPS?|NO)_PROXY)$"
SETTINGS: Schema = {
    "type": ["object", "null"],
    "properties": {
        variable(each, name): {"type": "string"}
        for each in (Settings, TransformerSettings, OpenTelemetrySettings)
        for name in each.model_fields
    },
    "patternProperties": {_FOREIGN: {"type": "string"}},
    "additionalProperties": False,
}
MODES = ("serverless", "standard", "plain")


@dataclass(frozen=True)
class Component:
    """One of manifests/components.

    Attributes:
        value: whose `enabled` it is.
        comment: its effect; empty: the helpers decide when it is enabled.
        needs: components that it includes.
        after: components that it changes where they are enabled.
        modes: in which it is available.
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
    """A value that replaces a text or a number of the manifests, in every field with exactly this content.

    Attributes:
        value: its path in values.yaml.
        comment: for values.yaml.
        found: the text in the manifests; of an image, without its tag.
        kind: `default`: the text is the default; `required`: it is an example; `optional`: it is an example, and
            without a value the field is removed; `each`: a required list, with an item for each entry; `image`.
        schema: JSON schema.
        within: the only object to change, `<kind>/<name>`, where the text has other meanings elsewhere.
    """

    value: str
    comment: str
    found: str | int
    kind: str = "default"
    schema: Schema = field(default_factory=lambda: TEXT)
    within: str = ""


@dataclass(frozen=True)
class Slot:
    """A value that is merged over fields of the manifests: maps, and lists by the names of their items.

    Attributes:
        value: its path in values.yaml.
        comment: for values.yaml.
        schema: JSON schema.
        places: `<kind>/<name>/<fields>`, items of lists by name; the field may be missing.
    """

    value: str
    comment: str
    schema: Schema
    places: tuple[str, ...]


# In the order of a kustomization: components that change the pod, then routes to it.
COMPONENTS = (
    Component("production", "2 to 8 pods over zones and nodes, a quota, default limits for injected containers."),
    Component("gpu", "A GPU for each pod, and a volume for engines."),
    Component(
        "cpuTriton", "The small Triton of `make images` in place of NVIDIA's; its README says how old.", modes=MODES
    ),
    Component("keda", "Scaling by Triton's queues.", modes=("standard",)),
    Component("aws", "A role of the service account in place of a Secret with S3 keys.", modes=MODES),
    Component("keys", "API keys for clients.", modes=MODES),
    Component("caBundle", "Your certificate authorities, for S3 and the collector.", modes=MODES),
    Component("signed", "Only versions that one of your keys has signed.", modes=MODES),
    Component("proxy", "S3 through an HTTP proxy.", modes=MODES),
    Component("otlp", "Spans to a collector in the cluster.", modes=MODES),
    Component("service", "A Service for the pods, REST at 80, gRPC at 8081; mode plain always has it."),
    Component("ipv6", "Listens on IPv6 too, for pods without an IPv4 address.", modes=MODES),
    Component("headless", "A headless Service, for gRPC clients that balance over the pods."),
    Component("ingress", "An Ingress for REST, and the Service that it needs.", needs=("service",)),
    Component("alb", "Annotations of the Ingress for AWS' load balancer controller.", needs=("service", "ingress")),
    Component("albGrpc", "gRPC through the same load balancer.", needs=("service", "ingress", "alb")),
    Component("httpRoute", "HTTPRoute and GRPCRoute, and the Service that they need.", needs=("service",)),
    Component("outside", "Addresses of clients, for NodePort and LoadBalancer.", needs=("service",)),
    Component("noNamespace", "", after=("production",)),
)

_SERVED = "InferenceService/nereid/spec/predictor"
_DEPLOYED = "Deployment/nereid/spec/template"
_SCALER = "HorizontalPodAutoscaler/nereid/spec"
_CPU = f"{_SCALER}/metrics/Resource/resource/target/averageUtilization"
_PODS = (_SERVED, f"{_DEPLOYED}/spec")
_S3 = "NetworkPolicy/nereid-s3"
_OUTSIDE = "NetworkPolicy/nereid-outside"
_TEST_NET = "192.0.2.0/24"
_ROLE = "arn:aws:iam::111122223333:role/nereid-models-read"
_CERTIFICATE = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000"


def _of_container(value: str, name: str, image: str) -> tuple[Text | Slot, ...]:
    resources, variables = (
        tuple(f"{pod}/containers/{name}/{field}" for pod in _PODS) for field in ("resources", "env")
    )
    follows = "Over the manifests': {limits: {memory: 8Gi}}. A request that is its limit there (GPUs) follows it."
    return (
        Text(f"{value}.image", "With your registry; a digest replaces the tag.", image, "image"),
        Slot(f"{value}.resources", follows, MAP, resources),
        Slot(f"{value}.env", "More variables; one with the same name is replaced.", LIST, variables),
    )


def _of_pod(name: str, comment: str, schema: Schema) -> Slot:
    return Slot(f"pod.{name}", comment, schema, tuple(f"{pod}/{name}" for pod in _PODS))


def _notes_of(value: str, comment: str, *places: str) -> Slot:
    return Slot(value, comment, STRINGS, tuple(f"{place}/{value.rpartition('.')[2]}" for place in places))


VALUES: tuple[Text | Slot, ...] = (
    Slot(
        "settings",
        "Settings of synchroniser and transformer, over manifests/base/settings.env. Required: PREDICTOR_REPOSITORY.\n"
        'Strings: {PREDICTOR_REPOSITORY: "s3://<bucket>/<prefix>", AWS_REGION: <its region>, PREDICTOR_POLL_S: "5"}.',
        SETTINGS,
        ("ConfigMap/nereid-settings/data",),
    ),
    Text("settings.PREDICTOR_REPOSITORY", "s3://<bucket>/<prefix> of yours", "s3://models/nereid", "required"),
    Text("s3.addresses", "A list of the CIDRs of S3: network policies have no names.", _TEST_NET, "each", CIDRS, _S3),
    Text("s3.port", "The port of S3.", 443, schema=PORT),
    Text("s3.secret", "Your Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", "nereid-s3", schema=NAME),
    *_of_container("triton", "kserve-container", "nvcr.io/nvidia/tritonserver"),
    Text(
        "triton.secret",
        "Your Secret; its `secret` is shared by Triton and the synchroniser.",
        "nereid-triton",
        schema=NAME,
    ),
    *_of_container("synchroniser", "synchroniser", "nereid/predictor"),
    *_of_container("transformer", "transformer-container", "nereid/transformer"),
    Slot("replicas.min", "Minimum of pods.", NUMBER, (f"{_SERVED}/minReplicas", f"{_SCALER}/minReplicas")),
    Slot("replicas.max", "Maximum of pods.", POSITIVE, (f"{_SERVED}/maxReplicas", f"{_SCALER}/maxReplicas")),
    Slot(
        "replicas.target",
        "Percent of CPU; in mode serverless concurrent requests.",
        POSITIVE,
        (f"{_SERVED}/scaleTarget", _CPU),
    ),
    _of_pod("nodeSelector", "On Knative this and the next four need a feature flag.", STRINGS),
    _of_pod("tolerations", "Added to those of the manifests.", LIST),
    _of_pod("affinity", "Affinity of the pods.", MAP),
    _of_pod("imagePullSecrets", "Such as [{name: registry}].", LIST),
    _of_pod("priorityClassName", "The name of your PriorityClass.", STRING),
    _notes_of("pod.annotations", "Added to those of the manifests.", _SERVED, f"{_DEPLOYED}/metadata"),
    _notes_of("pod.labels", "Added to those of the manifests.", _SERVED, f"{_DEPLOYED}/metadata"),
    _notes_of(
        "inferenceService.annotations", "Annotations for KServe and Knative.", "InferenceService/nereid/metadata"
    ),
    _notes_of(
        "serviceAccount.annotations", "Annotations of the pods' service account.", "ServiceAccount/nereid/metadata"
    ),
    Slot("networkPolicy.ingress", "More rules for ingress.", LIST, ("NetworkPolicy/nereid/spec/ingress",)),
    Slot("networkPolicy.egress", "More rules for egress.", LIST, (f"{_S3}/spec/egress",)),
    Text("networkPolicy.prometheus", "The namespace of Prometheus.", "monitoring", schema=NAME),
    Text("host", "The host name of Ingress and routes.", "vision.example.com", "required", NAME),
    Slot(
        "production.quota.hard",
        "The quota, with room for the maximum of pods.",
        MAP,
        ("ResourceQuota/nereid/spec/hard",),
    ),
    Slot("gpu.volume", "Over the claim: {storageClassName: efs}.", MAP, ("PersistentVolumeClaim/nereid-engines/spec",)),
    Text(
        "keda.prometheus", "URL of Prometheus, for KEDA.", "http://prometheus-operated.monitoring.svc:9090", schema=URL
    ),
    Text("cpuTriton.image", "With your registry; a digest replaces the tag.", "nereid/cpu-triton", "image"),
    Text("aws.roleArn", "A role that may read the bucket; empty with EKS Pod Identity.", _ROLE, "optional", ARN),
    Text("keys.secret", "Your Secret with the lines of `make key` under `keys`.", "nereid-keys", schema=NAME),
    Text("caBundle.configMap", "Your ConfigMap with ca.crt.", "nereid-ca", schema=NAME),
    Text("signed.configMap", "Your ConfigMap with public keys.", "nereid-signers", schema=NAME),
    Text("proxy.url", "The URL of the proxy.", "http://proxy.example.com:3128", "required", URL),
    Text("proxy.addresses", "A list of the CIDRs of the proxy.", "192.0.2.10/32", "each", CIDRS),
    Text("proxy.port", "The port in its URL.", 3128, schema=PORT),
    Text("otlp.endpoint", "http/protobuf.", "http://otel-collector.observability.svc:4318", schema=URL),
    Text("otlp.namespace", "Namespace of the collector.", "observability", schema=NAME),
    Text("otlp.name", "Label app.kubernetes.io/name of its pods.", "opentelemetry-collector"),
    Text("otlp.port", "The port in the endpoint.", 4318, schema=PORT),
    _notes_of("service.annotations", "Annotations for your cloud.", "Service/nereid/metadata"),
    Slot("service.spec", "Over its spec: {type: LoadBalancer}.", MAP, ("Service/nereid/spec",)),
    _notes_of("ingress.annotations", "Over ingress-nginx's.", "Ingress/nereid-http/metadata"),
    Slot("ingress.className", "Empty: the default class.", STRING, ("Ingress/nereid-http/spec/ingressClassName",)),
    Slot("ingress.tls", "Such as [{secretName: tls, hosts: [<host>]}].", LIST, ("Ingress/nereid-http/spec/tls",)),
    Text("alb.certificateArn", "The certificate of the host.", _CERTIFICATE, "required", ARN),
    Text("alb.addresses", "A list of the CIDRs of the ALB's subnets.", "198.51.100.0/24", "each", CIDRS),
    Text("outside.addresses", "A list of the CIDRs of clients.", _TEST_NET, "each", CIDRS, _OUTSIDE),
    Text("httpRoute.gateway.name", "Your Gateway.", "kserve-ingress-gateway", schema=NAME),
    Text("httpRoute.gateway.namespace", "Its namespace.", "kserve", schema=NAME),
)

# Fields that copy a value; without it they keep the text of the manifests.
COPIES: Mapping[str, str] = {
    f"{_SERVED}/containerConcurrency": "settings.TRANSFORMER_MAX_IN_FLIGHT",
    f"{_SERVED}/containers/synchroniser/env/PREDICTOR_CPUS/value": "triton.resources.limits.cpu",
    f"{_SERVED}/containers/transformer-container/env/TRANSFORMER_THREADS/value": "transformer.resources.limits.cpu",
}
