"""An AWS account of its own (moto), with what a configuration plans of S3, KMS, ECR, IAM and WAF."""

import json
from contextlib import ExitStack, closing
from typing import Any

import boto3
import httpx

from tests.support.s3 import S3
from tests.terraform.planned import Planned, Values

_CREATED = {"aws_kms_key", "aws_s3_bucket", "aws_ecr_repository", "aws_iam_role", "aws_iam_policy", "aws_wafv2_web_acl"}
# Blocks that may be there several times, by the name that the API has for the list.
_SEVERAL = {
    "rule": "Rules",
    "statement": "Statements",
    "text_transformation": "TextTransformations",
    "rule_action_override": "RuleActionOverrides",
}


class Account:
    """Creates what is planned, in the region that is planned."""

    def __init__(self, server: S3, planned: Planned, region: str) -> None:
        self._server = server
        self.planned = planned
        self._region = region

    def client(self, service: str, keys: dict[str, str] | None = None) -> Any:
        """A client of boto3; `keys` are of a role, else of who may everything."""
        environment = self._server.environment() | (keys or {})
        return boto3.client(
            service,
            endpoint_url=self._server.url,
            region_name=self._region,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment["AWS_SESSION_TOKEN"] or None,
        )

    def create(self) -> None:
        """Everything that moto knows; what refers to something comes after it.

        Raises:
            botocore.exceptions.ClientError: AWS would not take what is planned; `ParamValidationError`: nor boto3.
        """
        self.planned.name_others(_CREATED, f"arn:aws:other:{self._region}:123456789012")
        with ExitStack() as stack:
            kms, s3, ecr, iam, wafv2 = (
                stack.enter_context(closing(self.client(name))) for name in ("kms", "s3", "ecr", "iam", "wafv2")
            )
            self._create_keys(kms)
            self._create_buckets(s3)
            self._create_repositories(ecr)
            self._create_roles(iam)
            self._create_web_acls(wafv2)

    def enforce(self, after: str = "0") -> None:
        """Enforce the policies of roles from now on; `inf`: no more."""
        httpx.post(f"{self._server.url}/moto-api/reset-auth", content=after).raise_for_status()

    def environment(self, role_arn: str) -> dict[str, str]:
        """Variables of a program that has a role."""
        with closing(self.client("sts")) as sts:
            given = sts.assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
        return self._server.environment() | {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
            "AWS_DEFAULT_REGION": self._region,
        }

    def _create_keys(self, kms: Any) -> None:
        for key in self.planned.of_type("aws_kms_key"):
            policy = self.planned.policy(key["policy"])
            made = kms.create_key(Description=key["description"] or "", Policy=policy)["KeyMetadata"]
            self.planned.name(key, arn=made["Arn"], key_id=made["KeyId"], id=made["KeyId"])
            if key["enable_key_rotation"]:
                kms.enable_key_rotation(KeyId=made["KeyId"])
        for alias in self.planned.of_type("aws_kms_alias"):
            kms.create_alias(AliasName=alias["name"], TargetKeyId=alias["target_key_id"])

    def _create_buckets(self, s3: Any) -> None:
        for bucket in self.planned.of_type("aws_s3_bucket"):
            name = bucket["bucket"]
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": self._region})
            self.planned.name(bucket, id=name, arn=f"arn:aws:s3:::{name}")
        for policy in self.planned.of_type("aws_s3_bucket_policy"):
            self.planned.name(policy, id=policy["bucket"])
        for block in self.planned.of_type("aws_s3_bucket_public_access_block"):
            self.planned.name(block, id=block["bucket"])
        for each in self.planned.of_type("aws_s3_bucket_versioning"):
            status = {"Status": each["versioning_configuration"][0]["status"]}
            s3.put_bucket_versioning(Bucket=each["bucket"], VersioningConfiguration=status)
        for each in self.planned.of_type("aws_s3_bucket_public_access_block"):
            names = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
            rules = {_camel(name): each[name] for name in names}
            s3.put_public_access_block(Bucket=each["bucket"], PublicAccessBlockConfiguration=rules)
        self._configure_buckets(s3)

    def _configure_buckets(self, s3: Any) -> None:
        for each in self.planned.of_type("aws_s3_bucket_server_side_encryption_configuration"):
            (rule,) = each["rule"]
            (by_default,) = rule["apply_server_side_encryption_by_default"]
            encryption = {"SSEAlgorithm": by_default["sse_algorithm"]}
            if by_default["sse_algorithm"] == "aws:kms":
                encryption["KMSMasterKeyID"] = by_default["kms_master_key_id"]
            made = {
                "ApplyServerSideEncryptionByDefault": encryption,
                "BucketKeyEnabled": bool(rule["bucket_key_enabled"]),
            }
            s3.put_bucket_encryption(Bucket=each["bucket"], ServerSideEncryptionConfiguration={"Rules": [made]})
        for each in self.planned.of_type("aws_s3_bucket_lifecycle_configuration"):
            rules = [_lifecycle(rule) for rule in each["rule"]]
            s3.put_bucket_lifecycle_configuration(Bucket=each["bucket"], LifecycleConfiguration={"Rules": rules})
        for each in self.planned.of_type("aws_s3_bucket_ownership_controls"):
            ownership = {"Rules": [{"ObjectOwnership": each["rule"][0]["object_ownership"]}]}
            s3.put_bucket_ownership_controls(Bucket=each["bucket"], OwnershipControls=ownership)
        for each in self.planned.of_type("aws_s3_bucket_policy"):
            s3.put_bucket_policy(Bucket=each["bucket"], Policy=self.planned.policy(each["policy"]))

    def _create_repositories(self, ecr: Any) -> None:
        for each in self.planned.of_type("aws_ecr_repository"):
            made = ecr.create_repository(
                repositoryName=each["name"],
                imageTagMutability=each["image_tag_mutability"],
                imageScanningConfiguration={"scanOnPush": each["image_scanning_configuration"][0]["scan_on_push"]},
                encryptionConfiguration={"encryptionType": each["encryption_configuration"][0]["encryption_type"]},
            )["repository"]
            self.planned.name(each, arn=made["repositoryArn"], id=each["name"], repository_url=made["repositoryUri"])
        for each in self.planned.of_type("aws_ecr_lifecycle_policy"):
            ecr.put_lifecycle_policy(repositoryName=each["repository"], lifecyclePolicyText=each["policy"])

    def _create_roles(self, iam: Any) -> None:
        for each in self.planned.of_type("aws_iam_role"):
            policy = self.planned.policy(each["assume_role_policy"])
            made = iam.create_role(RoleName=each["name"], AssumeRolePolicyDocument=policy)["Role"]
            self.planned.name(each, arn=made["Arn"], id=each["name"])
        for each in self.planned.of_type("aws_iam_policy"):
            policy = self.planned.policy(each["policy"])
            made = iam.create_policy(PolicyName=each["name"], PolicyDocument=policy)["Policy"]
            self.planned.name(each, arn=made["Arn"], id=made["Arn"])
        for each in self.planned.of_type("aws_iam_role_policy_attachment"):
            if ":aws:policy/" not in each["policy_arn"]:  # of ours: moto does not have all of Amazon's
                iam.attach_role_policy(RoleName=each["role"], PolicyArn=each["policy_arn"])
        for each in self.planned.of_type("aws_iam_role_policy"):
            policy = self.planned.policy(each["policy"])
            iam.put_role_policy(RoleName=each["role"], PolicyName=each["name"], PolicyDocument=policy)

    def _create_web_acls(self, wafv2: Any) -> None:
        for each in self.planned.of_type("aws_wafv2_web_acl"):
            made = wafv2.create_web_acl(
                Name=each["name"],
                Scope=each["scope"],
                DefaultAction=_as_api(each["default_action"][0]),
                Rules=[_as_api(rule) for rule in sorted(each["rule"], key=lambda rule: int(rule["priority"]))],
                VisibilityConfig=_as_api(each["visibility_config"][0]),
            )["Summary"]
            self.planned.name(each, arn=made["ARN"], id=made["Id"])


def _lifecycle(rule: Values) -> Values:
    made: Values = {"ID": rule["id"], "Status": rule["status"], "Filter": {"Prefix": ""}}
    for each in rule["expiration"]:
        marker = {"ExpiredObjectDeleteMarker": True} if each["expired_object_delete_marker"] else {}
        made["Expiration"] = marker or {"Days": each["days"]}
    for each in rule["noncurrent_version_expiration"]:
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": each["noncurrent_days"]}
    for each in rule["abort_incomplete_multipart_upload"]:
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": each["days_after_initiation"]}
    return made


def _as_api(block: Values, *, inside: str = "") -> Values:
    """A block of the WAF as its API has it: every name in CamelCase, a block that is there once as an object."""
    made: Values = {}
    for name, value in block.items():
        several = name in _SEVERAL and not (name == "statement" and inside not in {"and_statement", "or_statement"})
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = [_as_api(each, inside=name) for each in value]
            made[_SEVERAL[name] if several else _camel(name)] = items if several else items[0]
        elif value not in (None, [], ""):
            made[_camel(name)] = value.encode() if name == "search_string" else value
    return made


def _camel(name: str) -> str:
    return {"cloudwatch_metrics_enabled": "CloudWatchMetricsEnabled"}.get(name, name.title().replace("_", ""))


def statements(policy: str) -> list[Values]:
    """Of a policy's JSON."""
    found: list[Values] = json.loads(policy)["Statement"]
    return found
