"""Schemas for External Secrets 1 and Argo CD 3: the fields that the manifests use. No package has the complete ones."""

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
