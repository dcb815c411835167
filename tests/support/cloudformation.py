"""Stacks of infra/cloudformation on the S3 server of the tests: moto has CloudFormation, ECS, SQS and SageMaker too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from cfnlint.decode import decode

from tests.support.s3 import S3
from tests.support.stack import ROOT

TEMPLATES = ROOT / "infra" / "cloudformation"
NAMES = tuple(sorted(path.name for path in TEMPLATES.glob("*.yaml")))
Object = dict[str, Any]


def read_template(name: str) -> Object:
    """A template, its short functions in their long form: `!Ref A` as `{"Ref": "A"}`."""
    template, matches = decode(str(TEMPLATES / name))
    assert template is not None, matches
    return dict(template)


def container_of(definition: Mapping[str, Any], name: str) -> Object:
    """A container of a task definition, of a template or as ECS describes it, by its name."""
    containers = definition.get("ContainerDefinitions") or definition["containerDefinitions"]
    (found,) = (each for each in containers if name in (each.get("Name"), each.get("name")))
    return dict(found)


class Account:
    """An account of AWS with its default VPC.

    Attributes:
        vpc: its id.
        subnets: their ids, with commas between.
    """

    def __init__(self, s3: S3) -> None:
        self._s3 = s3
        self._cloudformation = self.client("cloudformation")
        ec2 = self.client("ec2")
        self.vpc = str(ec2.describe_vpcs()["Vpcs"][0]["VpcId"])
        self.subnets = ",".join(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"][:2])

    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        variables = self._s3.environment()
        return boto3.client(
            service,
            endpoint_url=self._s3.url,
            region_name=variables["AWS_DEFAULT_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )

    def create(self, name: str, template: str, parameters: Mapping[str, str]) -> dict[str, str]:
        """Create a stack of a template.

        Returns:
            Its outputs.
        """
        self._cloudformation.create_stack(
            StackName=name,
            TemplateBody=template,
            Parameters=_list(parameters),
            Capabilities=["CAPABILITY_IAM"],
        )
        return self.outputs(name)

    def update(self, name: str, template: str, parameters: Mapping[str, str]) -> dict[str, str]:
        """Update a stack; returns its outputs."""
        self._cloudformation.update_stack(
            StackName=name, TemplateBody=template, Parameters=_list(parameters), Capabilities=["CAPABILITY_IAM"]
        )
        return self.outputs(name)

    def delete(self, name: str) -> None:
        """Delete a stack."""
        self._cloudformation.delete_stack(StackName=name)

    def outputs(self, name: str) -> dict[str, str]:
        """The outputs of a stack that was created or updated to its end."""
        (stack,) = self._cloudformation.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}, stack
        return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}

    def resources(self, name: str) -> dict[str, str]:
        """Physical ids of the resources that moto made, by their names in the template."""
        found = self._cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        # What moto does not know has no name.
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found if "LogicalResourceId" in each}


def read_text(name: str) -> str:
    """The text of a template."""
    return Path(TEMPLATES / name).read_text()


def _list(parameters: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
