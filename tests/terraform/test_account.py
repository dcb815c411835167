"""What infra/terraform plans, created in an AWS of its own: names, policies and prefix are those that ours use."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.s3 import start_s3
from tests.support.stack import ROOT, start_stack, wait_until
from tests.support.versions import Build, write
from tests.terraform import planned
from tests.terraform.account import Account, statements
from tests.terraform.workspace import Workspace

REGION = "eu-central-1"
MODEL = "tiny"


@pytest.fixture(scope="module")
def account(opened: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_s3(tmp_path_factory.mktemp("moto") / "log") as server:
        made = Account(server, planned.run(opened), REGION)
        made.create()
        yield made


@pytest.fixture
def bucket(account: Account) -> str:
    address: str = account.planned.output("repository")
    return address.removeprefix("s3://").partition("/")[0]


def nereid(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nereid", *arguments]
    return subprocess.run(command, cwd=ROOT, env=_path() | environment, check=False, capture_output=True, text=True)


def _path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def test_bucket_keeps_versions_encrypts_and_is_private(account: Account, bucket: str) -> None:
    with closing(account.client("s3")) as s3:
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        (lifecycle,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        policy = statements(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    with closing(account.client("kms")) as kms:
        key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
        assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert rule["BucketKeyEnabled"]
    assert lifecycle["NoncurrentVersionExpiration"]["NoncurrentDays"] >= 7
    assert "Days" not in lifecycle.get("Expiration", {}), "a model that serves must not expire"
    without_tls = [
        each for each in policy if each.get("Condition", {}).get("Bool") == {"aws:SecureTransport": ["false"]}
    ]
    assert [(each["Effect"], each["Action"], each["Principal"]) for each in without_tls] == [("Deny", ["s3:*"], "*")]


def test_repositories_are_scanned_and_immutable(account: Account) -> None:
    with closing(account.client("ecr")) as ecr:
        found = ecr.describe_repositories()["repositories"]
    assert {each["repositoryName"] for each in found} >= {"nereid/predictor", "nereid/transformer", "nereid/export"}
    assert {each["imageTagMutability"] for each in found} == {"IMMUTABLE"}
    assert all(each["imageScanningConfiguration"]["scanOnPush"] for each in found)


def granted(account: Account, role: str) -> set[str]:
    """The actions that the policies of a role grant."""
    found: list[dict[str, Any]] = []
    with closing(account.client("iam")) as iam:
        for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=each["PolicyArn"])["Policy"]["DefaultVersionId"]
            found += iam.get_policy_version(PolicyArn=each["PolicyArn"], VersionId=version)["PolicyVersion"][
                "Document"
            ]["Statement"]
    return {action for each in found for action in each["Action"]}


def test_reader_has_no_action_that_changes_anything(account: Account) -> None:
    reader = account.planned.output("roles")["reader"].rpartition("/")[2]
    assert granted(account, reader) == {"s3:ListBucket", "s3:GetObject", "kms:Decrypt"}


def test_rules_of_the_firewall_let_images_through(account: Account) -> None:
    (acl,) = account.planned.of_type("aws_wafv2_web_acl")
    with closing(account.client("wafv2")) as wafv2:
        rules = wafv2.get_web_acl(Name=acl["name"], Scope="REGIONAL", Id=acl["id"])["WebACL"]["Rules"]
    groups = [
        each["Statement"]["ManagedRuleGroupStatement"]
        for each in rules
        if "ManagedRuleGroupStatement" in each["Statement"]
    ]
    (common,) = [each for each in groups if each["Name"] == "AWSManagedRulesCommonRuleSet"]
    counted = {each["Name"] for each in common["RuleActionOverrides"] if each["ActionToUse"] == {"Count": {}}}
    assert "SizeRestrictions_BODY" in counted


# The last: moto ignores conditions of a bucket's policy, so its denial of plain HTTP would deny everything.
def test_publisher_publishes_and_the_stack_serves_it_with_the_reader(
    account: Account, bucket: str, tmp_path: Path
) -> None:
    with closing(account.client("s3")) as s3:
        s3.delete_bucket_policy(Bucket=bucket)
    address, roles = account.planned.output("repository"), account.planned.output("roles")
    write(tmp_path / "local", MODEL, Build(1), number=1)
    publishing = ["publish", MODEL, "--from", str(tmp_path / "local"), "--repository", address]
    publisher, reader = (account.environment(roles[name]) for name in ("publisher", "reader"))
    account.enforce()
    try:
        rejected = nereid(*publishing, environment=reader)
        assert rejected.returncode != 0
        assert "access denied (AccessDenied, PutObject)" in rejected.stderr
        done = nereid(*publishing, environment=publisher)
        assert done.returncode == 0, done.stderr
        variables = reader | {"POLL_S": "0.5", "SETTLE_S": "0.5"}
        with start_stack(address, tmp_path / "log", variables=variables) as stack:
            wait_until(
                lambda: stack.http.get("/status").json()["models"].get(MODEL, {}).get("serving") == ["1"],
                log=tmp_path / "log",
            )
    finally:
        account.enforce("inf")
