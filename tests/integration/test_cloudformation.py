"""The templates on moto: created, updated and deleted; and the worker as its task definition starts it.

moto makes no resource of the types in `UNKNOWN`: of them, only their schemas are verified (tests/manifests).
"""

import ast
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloudformation import Account, container_of, read_template, read_text
from tests.support.queues import Queues, start_worker
from tests.support.s3 import BUCKET, S3, start_s3
from tests.support.stack import PATIENCE_S, ROOT, start_shipped, wait_until

UNKNOWN = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::Secret",
}
IMAGE = ROOT / "loadtest" / "pictures" / "middle-two.jpg"
MODEL = "digit-classes"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def account(s3: S3) -> Account:
    return Account(s3)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return tmp_path.name.replace("_", "-")[:40]


@pytest.fixture
def cluster(account: Account, tmp_path: Path) -> str:
    return str(account.client("ecs").create_cluster(clusterName=tmp_path.name)["cluster"]["clusterName"])


def parameters_of_ecs(account: Account) -> dict[str, str]:
    return {
        "VpcId": account.vpc,
        "TaskSubnets": account.subnets,
        "LoadBalancerSubnets": account.subnets,
        "ClientCidr": "10.0.0.0/16",
        "TritonImage": "example/cpu-triton",
        "SynchroniserImage": "example/predictor",
        "TransformerImage": "example/transformer",
        "ModelBucket": "example-models",
    }


def parameters_of_worker(account: Account, cluster: str) -> dict[str, str]:
    return {
        "ClusterName": cluster,
        "VpcId": account.vpc,
        "TaskSubnets": account.subnets,
        "WorkerImage": "example/worker",
        "TransformerUrl": "http://127.0.0.1:8080",
        "ImageBucket": BUCKET,
        "ImagePrefix": "incoming/",
        "Model": MODEL,
    }


def known(template: str, absent: frozenset[str] = frozenset()) -> set[str]:
    """The resources of a template that moto makes, without those of a condition that does not hold."""
    resources = read_template(template)["Resources"]
    return {key for key, each in resources.items() if each["Type"] not in UNKNOWN and key not in absent}


def task_of(account: Account, name: str) -> dict[str, Any]:
    """The task definition of a stack, as ECS describes it."""
    found = account.client("ecs").describe_task_definition(taskDefinition=account.resources(name)["Task"])
    return dict(found["taskDefinition"])


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def test_ecs_is_created_updated_and_deleted(name: str, account: Account) -> None:
    text, parameters = read_text("ecs.yaml"), parameters_of_ecs(account)
    outputs = account.create(name, text, parameters)
    assert outputs["Url"].startswith("http://")
    assert set(account.resources(name)) == known("ecs.yaml", frozenset({"GrpcRule", "GrpcTargets"}))
    balancing = account.client("elbv2")
    group_arn = account.resources(name)["HttpTargets"]
    (group,) = balancing.describe_target_groups(TargetGroupArns=[group_arn])["TargetGroups"]
    assert group["HealthCheckPath"] == "/v2/health/ready"
    definition = task_of(account, name)
    assert environment_of(container_of(definition, "synchroniser"))["PREDICTOR_REPOSITORY"] == (
        "s3://example-models/nereid"
    )

    certificate = account.client("acm").request_certificate(DomainName="vision.example.com")["CertificateArn"]
    # What changes in the task is not seen: moto loses the containers of a task definition that is updated.
    changed = {"Profile": "auto", "CertificateArn": certificate, "ModelPrefix": "other"}
    outputs = account.update(name, text, parameters | changed)
    assert outputs["Url"].startswith("https://")
    assert set(account.resources(name)) == known("ecs.yaml")
    account.delete(name)
    # The cluster is left: moto loses sight of it in an update.
    assert not balancing.describe_load_balancers()["LoadBalancers"]


def test_roles_of_ecs_read_models_and_no_more(name: str, account: Account) -> None:
    account.create(name, read_text("ecs.yaml"), parameters_of_ecs(account))
    role = account.resources(name)["TaskRole"]
    policy = account.client("iam").get_role_policy(RoleName=role, PolicyName="models")["PolicyDocument"]
    wanted = json.loads((ROOT / "manifests" / "examples" / "aws" / "read-models.json").read_text())
    # moto gives the text of Python's dictionary, and keeps what AWS::NoValue takes out.
    statements = [each for each in ast.literal_eval(policy)["Statement"] if each]
    assert statements == wanted["Statement"]
    account.delete(name)


def test_worker_is_created_updated_and_deleted(name: str, account: Account, cluster: str) -> None:
    text, parameters = read_text("worker.yaml"), parameters_of_worker(account, cluster)
    outputs = account.create(name, text, parameters)
    assert set(account.resources(name)) == known("worker.yaml")
    sqs = account.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=outputs["QueueUrl"], AttributeNames=["All"])["Attributes"]
    policy = json.loads(attributes["RedrivePolicy"])
    dead = sqs.get_queue_attributes(QueueUrl=outputs["DeadLettersUrl"], AttributeNames=["QueueArn"])["Attributes"]
    assert (policy["deadLetterTargetArn"], int(policy["maxReceiveCount"])) == (dead["QueueArn"], 5)
    account.update(name, text, parameters | {"MaxTasks": "9", "Slots": "16"})
    assert set(account.resources(name)) == known("worker.yaml")
    account.delete(name)
    assert outputs["QueueUrl"] not in sqs.list_queues().get("QueueUrls", [])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"AsyncOutput": "s3://example/results", "AsyncInputBucket": "example"},
    ],
    ids=["real-time", "asynchronous"],
)
def test_sagemaker_is_created_updated_and_deleted(name: str, account: Account, parameters: dict[str, str]) -> None:
    text = read_text("sagemaker.yaml")
    parameters = {
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/nereid/standalone@sha256:" + "0" * 64,
        "ModelDataUri": "s3://example-models/nereid/",
        "InstanceType": "ml.c5.xlarge",  # moto knows no newer one
        **parameters,
    }
    account.create(name, text, parameters)
    assert set(account.resources(name)) == known("sagemaker.yaml")
    sagemaker = account.client("sagemaker")
    account.update(name, text, parameters | {"ModelDataUri": "s3://example-models/next/"})
    model = account.resources(name)["Model"].rpartition("/")[2]
    source = sagemaker.describe_model(ModelName=model)["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source["S3Uri"] == "s3://example-models/next/"
    account.delete(name)
    assert not sagemaker.list_endpoints()["Endpoints"]


def test_worker_runs_as_its_task_definition_says(
    name: str, account: Account, s3: S3, cluster: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with start_shipped(tmp_path_factory.mktemp("stack"), MODEL) as stack:
        given = {"TransformerUrl": str(stack.http.base_url), "ModelParameters": '{"top_k": 3}'}
        outputs = account.create(name, read_text("worker.yaml"), parameters_of_worker(account, cluster) | given)
        queues = Queues(account.client("sqs"), outputs["QueueUrl"], outputs["DeadLettersUrl"])
        container = container_of(task_of(account, name), "worker")
        variables = environment_of(container) | {"WORKER_WAIT_S": "1"}
        s3.put("incoming/two.jpg", IMAGE)
        with start_worker(s3, queues, given["TransformerUrl"], tmp_path / "worker.log", **variables) as worker:
            queues.send(event_of("incoming/two.jpg"))
            wait_until(
                lambda: any(key.endswith(".json") for key in s3.keys("incoming/")), seconds=PATIENCE_S, log=worker.log
            )
            wait_until(lambda: queues.count("All") == 0, seconds=PATIENCE_S, log=worker.log)
    (key,) = (key for key in s3.keys("incoming/") if key.endswith(".json"))
    result = json.loads(s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert (result["predictions"][0]["class"], result["parameters"]) == ("2", {"top_k": 3})
    account.delete(name)


def event_of(key: str) -> dict[str, Any]:
    """What EventBridge sends of a new object."""
    return {
        "version": "0",
        "id": "00000000-0000-0000-0000-000000000000",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "detail": {"bucket": {"name": BUCKET}, "object": {"key": key, "size": IMAGE.stat().st_size}},
    }
