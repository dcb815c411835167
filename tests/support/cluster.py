"""The cluster of `make cluster` in tests: applies overlays, publishes models, waits, keeps artefacts."""

import functools
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from cluster import machine
from cluster.kubectl import get, kubectl
from cluster.layout import CONTROL, OUTSIDE, ROOT
from cluster.programs import S3_PORT

NAMESPACE = "nereid"
BUCKET = "models"
S3_URL = f"http://{OUTSIDE.address}:{S3_PORT}"
KEYS = {"AWS_ACCESS_KEY_ID": "cluster", "AWS_SECRET_ACCESS_KEY": "cluster"}
_OVERLAYS = ROOT / "cluster" / "overlays"


def find_missing(*deployments: str) -> str:
    """Reason to skip a test; empty where it can run.

    Args:
        deployments: required in the cluster, as `namespace/name`.
    """
    if not machine.find(CONTROL):
        return "needs the cluster; next: make cluster"
    for each in deployments:
        namespace, _, name = each.partition("/")
        if not exists("deployment", name, namespace):
            return f"needs {each} in the cluster; next: make cluster-missing"
    return ""


def exists(kind: str, name: str, namespace: str = NAMESPACE) -> bool:
    """Whether an object exists."""
    return bool(kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=name"))


def render(overlay: Path | str) -> str:
    """Render a folder of `cluster/overlays`, or any other path, as YAML."""
    folder = _OVERLAYS / overlay
    command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def apply(overlay: Path | str, change: Callable[[list[Any]], list[Any]] = lambda each: each) -> None:
    """Apply an overlay by `kubectl apply --server-side`, after `change`."""
    documents = [each for each in yaml.safe_load_all(render(overlay)) if each]
    kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump_all(change(documents)))


def at_home(documents: list[Any]) -> list[Any]:
    """Objects of any overlay with this cluster's S3 server, and requests that fit its nodes."""
    settings = {"PREDICTOR_REPOSITORY": f"s3://{BUCKET}/nereid", "AWS_ENDPOINT_URL": S3_URL, "AWS_REGION": "us-east-1"}
    small = yaml.safe_load((_OVERLAYS / "requests.yaml").read_text())["spec"]["predictor"]["containers"]
    resources = {each["name"]: each["resources"] for each in small}
    (addresses,) = yaml.safe_load((_OVERLAYS / "addresses.yaml").read_text())
    for each in documents:
        if each["kind"] == "ConfigMap":
            each["data"] |= settings
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("s3"):
            each["spec"]["egress"] = addresses["value"]
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("outside"):
            each["spec"]["ingress"][0]["from"] = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
        pod = {"InferenceService": ("spec", "predictor"), "Deployment": ("spec", "template", "spec")}.get(each["kind"])
        if pod:
            for container in functools.reduce(lambda part, key: part[key], pod, each)["containers"]:
                container["resources"] |= resources[container["name"]]
    return documents


def make_namespace() -> None:
    """Create the namespace of the manifests again, with the Secrets that users create."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", "--timeout=180s")
    kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests/base/namespace.yaml'}")
    secrets = {"nereid-triton": {"secret": "not-to-be-guessed"}, "nereid-s3": KEYS}
    for name, values in secrets.items():
        literals = [f"--from-literal={key}={value}" for key, value in values.items()]
        kubectl("create", "secret", "generic", name, f"--namespace={NAMESPACE}", *literals)


def deploy(overlay: Path | str) -> None:
    """Create a bucket with a model and the namespace with its Secrets, and apply an overlay."""
    make_bucket()
    make_namespace()
    make("publish", MODEL="digit-finder", REPOSITORY=f"s3://{BUCKET}/nereid")
    apply(overlay)


def s3() -> Any:
    """boto3's client of the S3 server outside the cluster."""
    config = Config(proxies={}, retries={"max_attempts": 2})
    return boto3.client("s3", endpoint_url=S3_URL, config=config, region_name="us-east-1",
                        aws_access_key_id="cluster", aws_secret_access_key="cluster")  # noqa: S106  # fmt: skip


def make_bucket() -> None:
    """Create an empty, versioned bucket."""
    client = s3()
    if BUCKET in [each["Name"] for each in client.list_buckets()["Buckets"]]:
        pages = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
        for page in pages:
            for each in page.get("Versions", []) + page.get("DeleteMarkers", []):
                client.delete_object(Bucket=BUCKET, Key=each["Key"], VersionId=each["VersionId"])
        client.delete_bucket(Bucket=BUCKET)
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


def make(target: str, **variables: str) -> str:
    """Run `make <target>` as a user outside the cluster; returns its output.

    Raises:
        AssertionError: it failed.
    """
    words = [f"{key}={value}" for key, value in variables.items()]
    environment = ["env", f"AWS_ENDPOINT_URL={S3_URL}", "AWS_REGION=us-east-1", *(f"{k}={v}" for k, v in KEYS.items())]
    run = subprocess.run(
        [*environment, "make", "--no-print-directory", target, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"make {target}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
    return run.stdout


def wait_for(what: str, condition: Callable[[], object], patience_s: float = 180.0) -> float:
    """Wait for a condition; returns the seconds.

    Raises:
        AssertionError: it does not hold in time; with the last events.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + patience_s:
            events = kubectl("get", "events", f"--namespace={NAMESPACE}", "--sort-by=.lastTimestamp")
            pods = kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=wide")
            lines = "\n".join(events.splitlines()[-25:])
            raise AssertionError(f"{what}: not within {patience_s:.0f} s\n{pods}\n{lines}")
        time.sleep(0.2)
    return time.monotonic() - began


def is_ready(name: str = "nereid") -> bool:
    """Whether KServe reports an InferenceService as ready."""
    conditions = get("isvc", name, f"--namespace={NAMESPACE}").get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def url(name: str = "nereid") -> str:
    """The URL that KServe reports for an InferenceService."""
    return str(get("isvc", name, f"--namespace={NAMESPACE}")["status"]["url"])


def pods(selector: str = "app.kubernetes.io/part-of=nereid") -> list[Mapping[str, Any]]:
    """Our pods, terminating ones included."""
    return list(get("pods", f"--namespace={NAMESPACE}", f"--selector={selector}")["items"])


def status(base: str) -> Any:
    """The content of `/status`, by curl."""
    run = subprocess.run(["curl", "-sS", "-m", "10", f"{base}/status"], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def keep_artefacts(folder: Path) -> None:
    """Write events, objects and the logs of our containers into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = "pods,services,deployments,replicasets,hpa,pdb,networkpolicies,configmaps,inferenceservices"
    if kubectl("get", "crd", "revisions.serving.knative.dev", "--ignore-not-found", "--output=name"):
        kinds += ",ksvc,revisions.serving.knative.dev,podautoscalers.autoscaling.internal.knative.dev"
    for name, arguments in {
        "events.txt": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
        "objects.yaml": ("get", kinds, f"--namespace={NAMESPACE}", "--output=yaml"),
        "nodes.txt": ("describe", "nodes"),
        "pods.txt": ("get", "pods", "--all-namespaces", "--output=wide"),
    }.items():
        (folder / name).write_text(kubectl(*arguments))
    for pod in pods():
        for container in pod["spec"]["containers"]:
            name = pod["metadata"]["name"]
            arguments = (f"--namespace={NAMESPACE}", name, f"--container={container['name']}", "--tail=500")
            text = subprocess.run(
                [*machine.enter(OUTSIDE, "net"), "kubectl", "logs", *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
            (folder / f"{name}.{container['name']}.log").write_text(text.stdout + text.stderr)
