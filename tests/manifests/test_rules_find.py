"""Every rule finds its fault: a valid overlay is broken, one field at a time."""

from typing import Any

import pytest

from tests.manifests.pod import pod_of
from tests.manifests.pod_security import violations
from tests.manifests.rendering import KUBECTL_MISSING, Render, has_kubectl, render, title
from tests.manifests.rules import (
    RULES,
    Rule,
    credentials,
    deployments,
    egress,
    kserve,
    objects,
    pods,
    programs,
    selectors,
)
from tests.support.changes import GONE, changed, replaced

SERVERLESS, STANDARD, KEDA = "overlays/serverless", "overlays/standard", "overlays/keda"
PRODUCTION = "overlays/production"
SEPARATE, URI_CANARY = "overlays/separate-transformer", "overlays/canary/storage-uri"
PLAIN, BLUE_GREEN, TO_ZERO = "overlays/plain", "overlays/plain/blue-green", "overlays/http-add-on"
DEPLOYMENT = "Deployment spec template"
READ_TIMEOUT = "Ingress metadata annotations nginx.ingress.kubernetes.io/proxy-read-timeout"
BODY = "Ingress metadata annotations nginx.ingress.kubernetes.io/proxy-body-size"
ROUTE_WAITS = "InterceptorRoute spec timeouts"
SCALED = {"name": "nereid"}
BACKENDS = "Ingress spec rules 0 http paths 0 backend service"
SERVICE = "InferenceService"
SPEC = f"{SERVICE} spec predictor"
NOTED = f"{SERVICE} metadata annotations"
TRITON, SYNC, TRANSFORMER = (
    f"{SPEC} containers {name}" for name in ("kserve-container", "synchroniser", "transformer-container")
)
SETTINGS = "ConfigMap data"
MOVED = f"{SERVICE} spec transformer containers kserve-container"
JOB, RUNTIME, BUDGET = "Job spec template spec", "ServingRuntime spec", "PodDisruptionBudget spec"
RULE = "PrometheusRule spec groups nereid rules 0 expr"
ROLE = "arn:aws:iam::111122223333:role/nereid-models-read"
LITTLE = {"cpu": "1", "memory": "512Mi"}
CANARY = [{"trafficPercent": 1, "predictor": {"containers": [{"name": "kserve-container"}]}}]
RELABELLED = {"relabelings": [{"targetLabel": "__address__", "replacement": "$1:8000"}]}
SLEEP_30 = {"sleep": {"seconds": 30}}
BACKEND = {"name": "nereid-predictor", "port": 8080}
FROM_S3 = {"secretRef": {"name": "nereid-s3"}}
PROJECTED = {"name": "keys", "projected": {"sources": [{"secret": {"name": "nereid-triton"}}]}}
TOKEN = {"name": "keys", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
SKIPPED = f"{SPEC} annotations eks.amazonaws.com/skip-containers"
POLICY = "NetworkPolicy spec"
PEER = f"{POLICY} egress 0 to -"
TO_S3 = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
NAMED = {"kind": "Service", "metadata": {"name": "nereid"}, "spec": {}}
IDLE = "alb.ingress.kubernetes.io/load-balancer-attributes"
IDLE_20, IDLE_4000 = "idle_timeout.timeout_seconds=20", "idle_timeout.timeout_seconds=4000"
EKS = "overlays/eks"
CPU = {"containerName": "kserve-container", "resource": "limits.cpu"}
OTHER = {"matchLabels": {"app": "other"}}
OF_KSERVE = {"matchLabels": {"serving.kserve.io/inferenceservice": "nereid"}}


def variable(name: str, value: str) -> dict[str, str]:
    """A variable after the others: the last one counts."""
    return {"name": name, "value": value}


def of_secret(name: str) -> dict[str, Any]:
    return {"name": "MORE", "valueFrom": {"secretKeyRef": {"name": name, "key": "secret"}}}


def volume(source: str, **of: Any) -> dict[str, Any]:
    return {"name": "more", source: of}


def another(kind: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "another"}, "spec": spec}


# Rule, valid overlay, path and value of the fault: see tests/support/changes.py.
FAULTS: list[tuple[Rule, str, str, Any]] = [
    (objects.names_are_legal, SERVERLESS, f"{SERVICE} metadata name", "1nereid"),
    (objects.names_are_legal, SERVERLESS, f"{SYNC} name", "Sync"),
    (objects.objects_say_their_namespace, SERVERLESS, f"{SERVICE} metadata namespace", GONE),
    (objects.references_exist, SERVERLESS, f"{SPEC} serviceAccountName", "other"),
    (objects.references_exist, SERVERLESS, f"{SYNC} envFrom 0 configMapRef name", "nereid-settings"),
    (objects.references_exist, SERVERLESS, f"{SPEC} volumes -", volume("secret", secretName="other")),
    (objects.references_exist, SERVERLESS, f"{SPEC} volumes -", volume("persistentVolumeClaim", claimName="other")),
    (objects.texts_name_their_own_namespace, KEDA, f"{SERVICE} metadata namespace", "other"),
    (objects.texts_name_their_own_namespace, "monitoring", RULE, 'up{job="vision/nereid"} == 0'),
    (objects.texts_name_their_own_namespace, SEPARATE, f"{MOVED} env TRITON_SERVICE value", "nereid-triton.vision.svc"),
    (objects.placeholders_are_replaced, SERVERLESS, f"{SYNC} image", "registry.example.com/nereid/predictor:0.1.0"),
    (objects.placeholders_are_replaced, SERVERLESS, f"{SYNC} image", f"nereid/predictor@sha256:{2:064}"),
    (objects.placeholders_are_replaced, SERVERLESS, "ServiceAccount metadata annotations", {"role": ROLE}),
    (objects.containers_have_an_image, SERVERLESS, f"{SPEC} containers -", {"name": "other"}),
    (objects.limits_come_with_their_namespace, PRODUCTION, "Namespace", GONE),
    (selectors.load_balancers_reach_the_pods, EKS, "NetworkPolicy/nereid-alb spec ingress 0 ports 0 port", 8079),
    (objects.secrets_come_by_reference, SERVERLESS, f"{SYNC} env -", variable("AWS_SECRET_ACCESS_KEY", "x")),
    (objects.secrets_come_by_reference, SERVERLESS, f"{SETTINGS} PREDICTOR_SECRET", "x"),
    (
        credentials.secrets_reach_containers_that_need_them,
        SERVERLESS,
        f"{TRANSFORMER} env -",
        of_secret("nereid-triton"),
    ),
    (credentials.secrets_reach_containers_that_need_them, SERVERLESS, f"{TRANSFORMER} envFrom -", FROM_S3),
    (credentials.secrets_reach_containers_that_need_them, SERVERLESS, f"{TRITON} envFrom", [FROM_S3]),
    (
        credentials.secrets_reach_containers_that_need_them,
        PRODUCTION,
        f"{SYNC} volumeMounts -",
        {"name": "keys", "mountPath": "/k"},
    ),
    (credentials.secrets_reach_containers_that_need_them, PRODUCTION, f"{SPEC} volumes keys", PROJECTED),
    (credentials.credentials_reach_containers_that_use_s3, STANDARD, f"{SETTINGS} AWS_PROFILE", "models"),
    (
        credentials.credentials_reach_containers_that_use_s3,
        SERVERLESS,
        f"{TRITON} env -",
        variable("AWS_ROLE_ARN", ""),
    ),
    (credentials.tokens_reach_containers_that_use_s3, SERVERLESS, f"{SPEC} annotations", GONE),
    (credentials.tokens_reach_containers_that_use_s3, SERVERLESS, SKIPPED, "kserve-container,transformer-container"),
    (credentials.tokens_reach_containers_that_use_s3, PRODUCTION, SKIPPED, "kserve-container, transformer-container"),
    (credentials.tokens_reach_containers_that_use_s3, "overlays/storage-uri", SKIPPED, "kserve-container"),
    (credentials.tokens_reach_containers_that_use_s3, PRODUCTION, f"{SPEC} volumes keys", TOKEN),
    (
        credentials.tokens_reach_containers_that_use_s3,
        SEPARATE,
        f"{SERVICE} spec transformer serviceAccountName",
        "nereid",
    ),
    (
        credentials.tokens_reach_containers_that_use_s3,
        "jobs/build-tensorrt",
        "Job spec template metadata annotations",
        GONE,
    ),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, f"{POLICY} egress -", {"ports": [{"port": 443}]}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, f"{POLICY} egress 0 ports", GONE),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"ipBlock": {"cidr": "0.0.0.0/0"}}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"ipBlock": {"cidr": "10.0.0.0/8"}}),
    (
        egress.egress_is_limited_to_peers_and_ports,
        SERVERLESS,
        PEER,
        {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}},
    ),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"ipBlock": {"cidr": "169.254.169.0/24"}}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"ipBlock": {"cidr": "169.254.1.1/32"}}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"ipBlock": {"cidr": "fd00:ec2::23/128"}}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"namespaceSelector": {}}),
    (egress.egress_is_limited_to_peers_and_ports, SERVERLESS, PEER, {"namespaceSelector": {"matchLabels": {"a": "b"}}}),
    (egress.pods_reach_what_they_use, SERVERLESS, f"{POLICY} egress", []),
    (egress.pods_reach_what_they_use, SEPARATE, f"{POLICY} egress 0 ports 1", {"port": 443}),
    (egress.pods_reach_what_they_use, SEPARATE, f"{POLICY} egress -", TO_S3),
    (egress.pods_reach_what_they_use, STANDARD, f"{SETTINGS} HTTPS_PROXY", "http://proxy.acme.example:8888"),
    (egress.pods_reach_what_they_use, SERVERLESS, f"{SETTINGS} OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector"),
    (programs.files_of_settings_are_mounted, PRODUCTION, f"{TRANSFORMER} volumeMounts", []),
    (objects.images_have_the_version_of_the_project, SERVERLESS, f"{SYNC} image", "nereid/predictor:0.0.9"),
    (objects.images_have_the_version_of_the_project, SERVERLESS, f"{TRITON} image", "nvcr.io/nvidia/tritonserver"),
    (deployments.deployments_select_their_own_pods, PLAIN, f"{DEPLOYMENT} metadata labels", {"app": "other"}),
    (deployments.deployments_select_their_own_pods, BLUE_GREEN, "Deployment spec selector matchLabels color", GONE),
    (deployments.deployments_have_one_scaler, PLAIN, "Deployment spec replicas", 3),
    (deployments.deployments_have_one_scaler, PLAIN, "HorizontalPodAutoscaler spec scaleTargetRef name", "other"),
    (deployments.deployments_have_one_scaler, PLAIN, "HorizontalPodAutoscaler spec minReplicas", 9),
    (deployments.deployments_have_one_scaler, PLAIN, "HorizontalPodAutoscaler spec minReplicas", 0),
    (deployments.deployments_have_one_scaler, PLAIN, "ScaledObject", another("ScaledObject", scaleTargetRef=SCALED)),
    (deployments.services_lead_to_open_ports_of_one_deployment, BLUE_GREEN, "Service spec selector color", GONE),
    (deployments.services_lead_to_open_ports_of_one_deployment, PLAIN, "Service spec ports 0 targetPort", "https"),
    (deployments.services_lead_to_open_ports_of_one_deployment, PLAIN, "Service spec ports 0 targetPort", 8001),
    (deployments.deployments_let_requests_finish, PLAIN, f"{DEPLOYMENT} spec terminationGracePeriodSeconds", GONE),
    (deployments.deployments_let_requests_finish, PLAIN, f"{DEPLOYMENT} spec terminationGracePeriodSeconds", 60),
    (deployments.connections_outlive_those_of_proxies, PLAIN, f"{SETTINGS} TRANSFORMER_KEEP_ALIVE_S", "60"),
    (deployments.connections_outlive_those_of_proxies, TO_ZERO, f"{SETTINGS} TRANSFORMER_KEEP_ALIVE_S", "75"),
    (deployments.connections_outlive_those_of_proxies, SERVERLESS, f"{SETTINGS} TRANSFORMER_KEEP_ALIVE_S", "75"),
    (deployments.connections_outlive_those_of_proxies, STANDARD, f"{SETTINGS} TRANSFORMER_KEEP_ALIVE_S", "100"),
    (deployments.connections_outlive_those_of_proxies, EKS, f"Ingress metadata annotations {IDLE}", IDLE_4000),
    (deployments.ingresses_accept_what_the_transformer_accepts, PLAIN, READ_TIMEOUT, "30"),
    (deployments.workers_let_messages_finish, "worker", f"{DEPLOYMENT} spec terminationGracePeriodSeconds", 60),
    (programs.settings_exist_and_are_valid, "worker", f"{SETTINGS} WORKER_SLOT", "8"),
    (deployments.rollouts_wait_for_slow_starts, PLAIN, "Deployment spec progressDeadlineSeconds", GONE),
    (deployments.ingresses_accept_what_the_transformer_accepts, PLAIN, BODY, GONE),
    (
        deployments.ingresses_accept_what_the_transformer_accepts,
        PLAIN,
        f"{SETTINGS} TRANSFORMER_REQUEST_TIMEOUT_S",
        "90",
    ),
    (
        deployments.ingresses_accept_what_the_transformer_accepts,
        PLAIN,
        f"{SETTINGS} TRANSFORMER_MAX_BODY_BYTES",
        "200000000",
    ),
    (deployments.ingresses_accept_what_the_transformer_accepts, TO_ZERO, READ_TIMEOUT, "60"),
    (deployments.ingresses_accept_what_the_transformer_accepts, TO_ZERO, f"{ROUTE_WAITS} readiness", GONE),
    (deployments.ingresses_accept_what_the_transformer_accepts, TO_ZERO, f"{ROUTE_WAITS} request", "5m1s"),
    (deployments.ingresses_accept_what_the_transformer_accepts, TO_ZERO, f"{ROUTE_WAITS} responseHeader", "20s"),
    (
        deployments.scaling_from_zero_is_triggered_by_the_interceptor,
        TO_ZERO,
        "ScaledObject spec triggers 0 type",
        "external",
    ),
    (
        deployments.scaling_from_zero_is_triggered_by_the_interceptor,
        TO_ZERO,
        "InterceptorRoute spec target service",
        "s3",
    ),
    (deployments.scaling_from_zero_is_triggered_by_the_interceptor, TO_ZERO, "InterceptorRoute spec rules", []),
    (deployments.scaling_from_zero_is_triggered_by_the_interceptor, TO_ZERO, f"{BACKENDS} name", "nereid"),
    (
        deployments.scaling_from_zero_is_triggered_by_the_interceptor,
        TO_ZERO,
        "NetworkPolicy/nereid spec ingress",
        lambda rules: rules[:1],
    ),
    (kserve.the_first_container_is_the_one_kserve_completes, SERVERLESS, f"{SPEC} containers", lambda all_: all_[::-1]),
    (kserve.the_first_container_is_the_one_kserve_completes, SERVERLESS, f"{SYNC} name", "kserve-container"),
    (kserve.replicas_are_in_order, STANDARD, f"{SPEC} minReplicas", 0),
    (kserve.replicas_are_in_order, SERVERLESS, f"{SPEC} minReplicas", 9),
    (
        kserve.deployment_mode_has_its_present_name,
        STANDARD,
        f"{NOTED} serving.kserve.io/deploymentMode",
        "RawDeployment",
    ),
    (kserve.knative_exposes_one_port, SERVERLESS, f"{TRANSFORMER} ports -", {"containerPort": 8081}),
    (kserve.knative_exposes_one_port, SERVERLESS, f"{TRANSFORMER} ports 0 name", "http"),
    (kserve.knative_exposes_one_port, SERVERLESS, f"{TRANSFORMER} ports 0 containerPort", 8012),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{TRANSFORMER} lifecycle", {}),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{TRITON} livenessProbe", {}),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{SPEC} terminationGracePeriodSeconds", 60),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{TRANSFORMER} env -", variable("PORT", "1")),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{TRANSFORMER} readinessProbe periodSeconds", 10),
    (kserve.knative_gets_no_field_that_it_rejects, SERVERLESS, f"{TRANSFORMER} readinessProbe periodSeconds", GONE),
    (kserve.knative_needs_no_feature_flag, SERVERLESS, f"{SPEC} nodeSelector", {"gpu": "yes"}),
    (kserve.knative_needs_no_feature_flag, SERVERLESS, f"{SPEC} volumes -", volume("persistentVolumeClaim")),
    (kserve.knative_needs_no_feature_flag, SERVERLESS, f"{SYNC} env -", {"name": "A", "valueFrom": {"fieldRef": {}}}),
    (kserve.knative_needs_no_feature_flag, SERVERLESS, f"{SYNC} volumeMounts 0 mountPath", "/dev/log"),
    (kserve.requests_fit_the_timeout_of_knative, SERVERLESS, f"{SPEC} timeout", 900),
    (kserve.knative_scales_by_requests, SERVERLESS, f"{SPEC} scaleMetric", "cpu"),
    (kserve.knative_scales_by_requests, SERVERLESS, f"{NOTED} serving.kserve.io/autoscalerClass", "hpa"),
    (kserve.knative_scales_by_requests, SERVERLESS, f"{SPEC} scaleTarget", 99),
    (kserve.standard_scales_by_resources_or_by_keda, STANDARD, f"{SPEC} scaleMetric", "concurrency"),
    (kserve.standard_scales_by_resources_or_by_keda, STANDARD, f"{SPEC} scaleTarget", 200),
    (kserve.standard_scales_by_resources_or_by_keda, STANDARD, f"{SPEC} canaryTrafficPercent", 10),
    (kserve.standard_scales_by_resources_or_by_keda, STANDARD, f"{NOTED} serving.kserve.io/autoscalerClass", "kpa"),
    (kserve.standard_scales_by_resources_or_by_keda, KEDA, f"{SPEC} scaleMetric", "cpu"),
    (kserve.standard_scales_by_resources_or_by_keda, KEDA, f"{SPEC} autoScaling metrics 0 external target value", GONE),
    (kserve.canary_is_one_that_kserve_accepts, STANDARD, f"{SERVICE} spec canary", CANARY),
    (kserve.canary_is_one_that_kserve_accepts, URI_CANARY, f"{SERVICE} spec canary 0 predictor name", GONE),
    (kserve.canary_is_one_that_kserve_accepts, URI_CANARY, f"{SERVICE} spec canary 0 predictor maxReplicas", 9),
    (pods.pods_keep_the_restricted_standard, SERVERLESS, f"{SYNC} securityContext", GONE),
    (pods.pods_keep_the_restricted_standard, SERVERLESS, f"{SYNC} securityContext seccompProfile", GONE),
    (pods.pods_keep_the_restricted_standard, SERVERLESS, f"{SYNC} securityContext runAsNonRoot", GONE),
    (pods.namespaces_enforce_the_restricted_standard, SERVERLESS, "Namespace metadata labels", GONE),
    (pods.roots_are_read_only, SERVERLESS, f"{SYNC} securityContext readOnlyRootFilesystem", False),
    (pods.pods_mount_no_token, SERVERLESS, "ServiceAccount automountServiceAccountToken", GONE),
    (pods.containers_have_requests_and_limits, SERVERLESS, f"{SYNC} resources limits memory", GONE),
    (pods.containers_have_requests_and_limits, SERVERLESS, f"{SYNC} resources requests cpu", "64"),
    (pods.containers_have_requests_and_limits, "jobs/publish", f"{JOB} containers 0 resources limits", LITTLE),
    (pods.pods_go_where_their_images_run, STANDARD, f"{SPEC} nodeSelector", GONE),
    (pods.pods_go_where_their_images_run, SEPARATE, f"{SERVICE} spec transformer nodeSelector", GONE),
    (pods.pods_go_where_their_images_run, "jobs/publish", f"{JOB} nodeSelector", GONE),
    (pods.spread_pods_are_of_one_revision, PRODUCTION, f"{SPEC} topologySpreadConstraints 0 matchLabelKeys", GONE),
    (pods.spread_pods_are_of_one_revision, PRODUCTION, f"{SPEC} topologySpreadConstraints 1 labelSelector", OTHER),
    (pods.cpu_triton_is_out_of_reach, STANDARD, f"{TRITON} image", "registry.test/nereid/cpu-triton:0.1.0"),
    (pods.cpu_triton_is_out_of_reach, "overlays/local", f"{TRITON} args -", "--grpc-address=0.0.0.0"),
    (pods.cpu_triton_is_out_of_reach, "overlays/local", f"{TRITON} resources limits nvidia.com/gpu", "1"),
    (pods.drains_evict_pods_that_are_not_ready, SERVERLESS, f"{BUDGET} unhealthyPodEvictionPolicy", "IfHealthyBudget"),
    (pods.quotas_have_room_for_every_pod, PRODUCTION, f"{SPEC} maxReplicas", 20),
    (pods.quotas_have_room_for_every_pod, PRODUCTION, "ResourceQuota spec hard requests.memory", "40Gi"),
    (pods.empty_dirs_have_a_size, SERVERLESS, f"{SPEC} volumes mirror emptyDir sizeLimit", GONE),
    (pods.empty_dirs_have_a_size, SERVERLESS, f"{SPEC} volumes mirror emptyDir sizeLimit", "1Ti"),
    (pods.volumes_are_mounted, SERVERLESS, f"{SPEC} volumes -", volume("emptyDir", sizeLimit="1Mi")),
    (pods.volumes_are_mounted, SERVERLESS, f"{SPEC} volumes mirror", GONE),
    (
        programs.arguments_are_valid,
        SERVERLESS,
        f"{TRANSFORMER} args",
        replaced("http_port", "port"),
    ),
    (programs.arguments_are_valid, SERVERLESS, f"{SYNC} args -", "--fast"),
    (programs.variables_in_arguments_are_defined, SERVERLESS, f"{TRITON} env", []),
    (programs.shell_scripts_are_well_formed, SERVERLESS, f"{TRITON} args", replaced("done", "dne")),
    (programs.shell_scripts_are_well_formed, STANDARD, f"{TRITON} livenessProbe exec command", ["bash", "-c", "if"]),
    (programs.settings_exist_and_are_valid, SERVERLESS, f"{SETTINGS} PREDICTOR_POLL", "1"),
    (programs.settings_exist_and_are_valid, SERVERLESS, f"{TRANSFORMER} env -", variable("TRANSFORMER_THREADS", "no")),
    (programs.probes_request_what_is_served, SERVERLESS, f"{TRANSFORMER} readinessProbe httpGet path", "/healthz"),
    (programs.probes_request_what_is_served, SERVERLESS, f"{TRANSFORMER} livenessProbe httpGet port", 8000),
    (
        programs.probes_request_what_is_served,
        SERVERLESS,
        f"{TRITON} livenessProbe",
        {"httpGet": {"path": "/", "port": 8000}},
    ),
    (programs.hanging_programs_are_restarted, STANDARD, f"{SYNC} livenessProbe", GONE),
    (programs.hanging_programs_are_restarted, "overlays/storage-uri", f"{RUNTIME} containers 0 livenessProbe", GONE),
    (programs.slow_starts_are_not_killed, STANDARD, f"{TRANSFORMER} startupProbe", GONE),
    (programs.slow_starts_are_not_killed, STANDARD, f"{SYNC} startupProbe failureThreshold", 30),
    (programs.slow_starts_are_not_killed, "overlays/storage-uri", f"{RUNTIME} containers 1 startupProbe", GONE),
    (programs.ports_are_listened_on, SERVERLESS, f"{TRANSFORMER} env -", variable("TRANSFORMER_HOST", "127.0.0.1")),
    (programs.kserve_finds_both_protocols, STANDARD, f"{TRANSFORMER} ports 1 name", "rpc"),
    (programs.kserve_finds_both_protocols, STANDARD, f"{TRANSFORMER} ports", lambda ports: ports[::-1]),
    (programs.containers_find_each_other, SERVERLESS, f"{TRANSFORMER} args", replaced("127.0.0.1:8001", "triton:8001")),
    (programs.containers_find_each_other, SERVERLESS, f"{TRITON} args", replaced("=/mirror/trial", "=/mirror/tried")),
    (programs.containers_find_each_other, SERVERLESS, f"{TRITON} args", replaced(":nereid=", ":other=")),
    (programs.containers_find_each_other, SERVERLESS, f"{SYNC} env -", variable("PREDICTOR_SYNC_PORT", "9003")),
    (programs.containers_find_each_other, SERVERLESS, f"{SYNC} env -", variable("PREDICTOR_CPUS", "64")),
    (programs.containers_find_each_other, SEPARATE, "Service spec ports 0 targetPort", 8000),
    (programs.containers_find_each_other, SEPARATE, "Service spec ports 1 targetPort", 8002),
    (programs.secrets_of_a_pod_agree, SERVERLESS, f"{TRITON} env PREDICTOR_SECRET valueFrom secretKeyRef key", "other"),
    (programs.requests_end_before_the_pod_does, SERVERLESS, f"{SPEC} timeout", 30),
    (programs.requests_end_before_the_pod_does, SERVERLESS, f"{SETTINGS} TRANSFORMER_SHUTDOWN_TIMEOUT_S", "300"),
    (programs.requests_end_before_the_pod_does, STANDARD, f"{SPEC} terminationGracePeriodSeconds", 65),
    (programs.requests_end_before_the_pod_does, STANDARD, f"{TRANSFORMER} lifecycle preStop", SLEEP_30),
    (programs.requests_end_before_the_pod_does, EKS, f"{SPEC} terminationGracePeriodSeconds", 90),
    (selectors.selectors_match_pods, SERVERLESS, "PodDisruptionBudget spec selector", OTHER),
    (selectors.routes_lead_to_services, STANDARD, "Route", another("HTTPRoute", rules=[{"backendRefs": [BACKEND]}])),
    (selectors.routes_lead_to_services, STANDARD, "Route", another("GRPCRoute", rules=[{"backendRefs": [BACKEND]}])),
    (selectors.services_have_a_name_that_kserve_does_not_use, SERVERLESS, "Service", NAMED),
    (
        pods.variables_state_the_defaults_of_the_api_server,
        STANDARD,
        f"{SYNC} env PREDICTOR_CPUS valueFrom resourceFieldRef",
        CPU,
    ),
    (selectors.routes_have_a_name_that_kserve_does_not_use, EKS, "Ingress metadata name", "nereid"),
    (deployments.ingresses_accept_what_the_transformer_accepts, EKS, f"Ingress metadata annotations {IDLE}", IDLE_20),
    (selectors.routes_lead_to_services, PLAIN, f"{BACKENDS} port name", "grpcs"),
    (selectors.routes_lead_to_services, TO_ZERO, "InterceptorRoute spec target portName", "grpc"),
    (selectors.selectors_match_pods, PLAIN, "PodDisruptionBudget spec selector", OF_KSERVE),
    (selectors.services_and_their_monitors_match, PLAIN, "Service spec selector", OF_KSERVE["matchLabels"]),
    (selectors.pods_that_serve_are_isolated, PLAIN, "NetworkPolicy/nereid spec policyTypes", ["Egress"]),
    (selectors.policies_admit_clients, PLAIN, "NetworkPolicy/nereid spec ingress", lambda rules: rules[:1]),
    (selectors.pods_that_serve_are_isolated, SERVERLESS, "NetworkPolicy/nereid spec policyTypes", ["Egress"]),
    (selectors.policies_admit_clients, SERVERLESS, "NetworkPolicy/nereid spec ingress", []),
    (selectors.policies_admit_clients, STANDARD, "NetworkPolicy/nereid spec ingress", lambda rules: rules[:1]),
    (selectors.services_and_their_monitors_match, STANDARD, "Service", another("Service", selector={"app": "other"})),
    (selectors.services_and_their_monitors_match, STANDARD, "Monitor", another("ServiceMonitor", selector=OTHER)),
    (selectors.monitored_ports_are_open, STANDARD, "M", another("PodMonitor", podMetricsEndpoints=[{"portNumber": 1}])),
    (selectors.monitored_ports_are_open, STANDARD, "M", another("PodMonitor", podMetricsEndpoints=[RELABELLED])),
]


@pytest.mark.parametrize(
    ("rule", "name", "path", "value"),
    FAULTS,
    ids=[f"{rule.__name__}-{index}" for index, (rule, *_) in enumerate(FAULTS)],
)
def test_rule_finds_the_fault(rule: Rule, name: str, path: str, value: Any) -> None:
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    right = {title(each): each for each in render(name).objects}
    first, *rest = path.split()
    # A kind stands for its last object.
    chosen = next((title_ for title_ in reversed(right) if title_.startswith(f"{first}/")), first)
    assert list(rule(Render(name, tuple(right.values())))) == []
    assert list(rule(Render(name, tuple(changed(right, " ".join([chosen, *rest]), value).values()))))


def test_every_rule_has_a_fault_to_find() -> None:
    of_foreign = {objects.images_name_their_registry}  # test_foreign.py
    assert {rule for rule, *_ in FAULTS} | of_foreign == set(RULES)


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsNonRoot": True, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}},
        {"initContainers": [{"name": "a"}]},
    ],
)
def test_restricted_standard_rejects(change: dict[str, Any]) -> None:
    right = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "a", "securityContext": right}]}}
    assert list(violations(pod)) == []
    assert list(violations({"spec": pod["spec"] | change}))


def test_assumed_pod_is_that_of_kserve() -> None:
    given: dict[str, Any] = {
        "metadata": {
            "name": "finder",
            "namespace": "n",
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {"minReplicas": 1, "containers": [{"name": "kserve-container", "image": "a"}]},
            "transformer": {"containers": [{"name": "kserve-container", "args": ["--model_name=x"]}]},
        },
    }
    predicts, transforms = pod_of(given), pod_of(given, "transformer")
    assert predicts["metadata"]["labels"] == {
        "serving.kserve.io/inferenceservice": "finder",
        "component": "predictor",
        "app": "isvc.finder-predictor",
    }
    assert set(predicts["spec"]) == {"containers"}
    assert predicts["spec"]["containers"][0]["readinessProbe"] == {"tcpSocket": {"port": 8080}}
    args = ["--model_name=x", "--predictor_host", "finder-predictor.n", "--http_port", "8080"]
    assert transforms["spec"]["containers"][0]["args"] == args
    given["spec"]["transformer"]["containerConcurrency"] = 4
    assert pod_of(given, "transformer")["spec"]["containers"][0]["args"] == [*args, "--workers", "4"]
    given["spec"]["predictor"]["containerConcurrency"] = 4
    assert "args" not in pod_of(given)["spec"]["containers"][0]


def test_pod_of_a_model_is_its_runtime_s() -> None:
    runtime = {
        "spec": {
            "containers": [{"name": "kserve-container", "image": "a", "args": ["tritonserver"]}, {"name": "other"}],
            "volumes": [{"name": "shm", "emptyDir": {}}],
        }
    }
    given = {
        "metadata": {"name": "finder"},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "triton"}, "args": ["--id=1"]}}},
    }
    spec = pod_of(given, runtime=runtime)["spec"]
    assert [each["name"] for each in spec["containers"]] == ["kserve-container", "other"]
    assert spec["containers"][0]["args"] == ["tritonserver", "--id=1"]
    assert "model" not in spec
    assert spec["volumes"]
