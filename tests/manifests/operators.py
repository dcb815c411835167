"""Schemas for External Secrets 1, Argo CD 3, Argo Rollouts 1.10: the fields that are used; no package has all."""

from typing import Any

from tests.manifests.gateway import fields, list_of

_NAME = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(h|m|s))+$"}
_REMOTE = fields("key", key=_NAME, property=_NAME)
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _kind(api_version: str, kind: str, spec: Any) -> Any:
    return fields(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata={"type": "object"},
        spec=spec,
    )


EXTERNAL_SECRET = _kind(
    "external-secrets.io/v1",
    "ExternalSecret",
    {
        **fields(
            "secretStoreRef",
            "target",
            refreshInterval=_DURATION,
            refreshPolicy={"enum": ["CreatedOnce", "Periodic", "OnChange"]},
            secretStoreRef=fields("kind", "name", kind={"enum": ["SecretStore", "ClusterSecretStore"]}, name=_NAME),
            target=fields("name", name=_NAME),
            data=list_of(fields("secretKey", "remoteRef", secretKey=_NAME, remoteRef=_REMOTE)),
            dataFrom=list_of(fields("extract", extract=_REMOTE)),
        ),
        # The CRD accepts one with neither, which makes an empty Secret.
        "anyOf": [{"required": ["data"]}, {"required": ["dataFrom"]}],
    },
)
SECRET_STORE = _kind(
    "external-secrets.io/v1",
    "SecretStore",
    fields(
        "provider",
        provider=fields(
            "aws",
            aws=fields(
                "service",
                "region",
                service={"enum": ["SecretsManager", "ParameterStore"]},
                region=_NAME,
                auth=fields("jwt", jwt=fields("serviceAccountRef", serviceAccountRef=fields("name", name=_NAME))),
            ),
        ),
    ),
)
_RETRY = fields(
    limit={"type": "integer"},
    backoff=fields(duration=_DURATION, factor={"type": "integer", "minimum": 1}, maxDuration=_DURATION),
)
_SYNC_POLICY = fields(
    automated=fields(prune={"type": "boolean"}, selfHeal={"type": "boolean"}, enabled={"type": "boolean"}),
    syncOptions=list_of({"type": "string", "pattern": "^[A-Z][A-Za-z]+=[a-z]+$"}),
    retry=_RETRY,
)
_APPLICATION = fields(
    "project",
    "source",
    "destination",
    project=_NAME,
    source=fields("repoURL", "targetRevision", "path", repoURL=_NAME, targetRevision=_NAME, path=_NAME),
    # By address or by the cluster's name in Argo CD, never by both.
    destination={
        **fields("namespace", namespace=_NAME, name=_NAME, server=_NAME),
        "oneOf": [{"required": ["name"]}, {"required": ["server"]}],
    },
    syncPolicy=_SYNC_POLICY,
)
APPLICATION_SET = _kind(
    "argoproj.io/v1alpha1",
    "ApplicationSet",
    fields(
        "generators",
        "template",
        goTemplate={"type": "boolean"},
        goTemplateOptions=list_of({"enum": ["missingkey=default", "missingkey=invalid", "missingkey=error"]}),
        generators=list_of(fields("list", list=fields("elements", elements=list_of({"type": "object"})))),
        syncPolicy=fields(preserveResourcesOnDeletion={"type": "boolean"}),
        template=fields(
            "metadata",
            "spec",
            metadata=fields("name", name=_NAME, labels=_TEXTS, annotations=_TEXTS),
            spec=_APPLICATION,
        ),
    ),
)
_ARGUMENT = fields(
    "name", name=_NAME, value=_NAME, valueFrom=fields("fieldRef", fieldRef=fields("fieldPath", fieldPath=_NAME))
)
_ANALYSIS = fields("templates", templates=list_of(fields("templateName", templateName=_NAME)), args=list_of(_ARGUMENT))
_COUNT = {"type": "integer", "minimum": 0}
ROLLOUT = _kind(
    "argoproj.io/v1alpha1",
    "Rollout",
    fields(
        "selector",
        "workloadRef",
        "strategy",
        progressDeadlineSeconds=_COUNT,
        progressDeadlineAbort={"type": "boolean"},
        selector=fields("matchLabels", matchLabels=_TEXTS),
        workloadRef=fields(
            "apiVersion",
            "kind",
            "name",
            apiVersion={"const": "apps/v1"},
            kind={"const": "Deployment"},
            name=_NAME,
            scaleDown={"enum": ["never", "onsuccess", "progressively"]},
        ),
        strategy=fields(
            "blueGreen",
            blueGreen=fields(
                "activeService",
                activeService=_NAME,
                previewService=_NAME,
                previewReplicaCount=_COUNT,
                autoPromotionEnabled={"type": "boolean"},
                scaleDownDelaySeconds=_COUNT,
                prePromotionAnalysis=_ANALYSIS,
            ),
        ),
    ),
)
_WEB = fields(
    "url",
    url=_NAME,
    method={"enum": ["GET", "POST", "PUT"]},
    timeoutSeconds=_COUNT,
    jsonPath=_NAME,
    jsonBody={"type": "object"},
)
ANALYSIS_TEMPLATE = _kind(
    "argoproj.io/v1alpha1",
    "AnalysisTemplate",
    fields(
        "metrics",
        args=list_of(fields("name", name=_NAME, value=_NAME)),
        metrics=list_of(
            fields(
                "name",
                "provider",
                name=_NAME,
                count=_COUNT,
                interval=_DURATION,
                failureLimit=_COUNT,
                consecutiveErrorLimit=_COUNT,
                successCondition=_NAME,
                provider=fields("web", web=_WEB),
            )
        ),
    ),
)
