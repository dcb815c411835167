"""Terraform rejects by the schemas what it rejects by the providers, and the schemas of npm are those of the source."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.terraform import workspace
from tests.terraform.workspace import TerraformError, Workspace

REQUIRED = """
terraform {
  required_providers {
    %s = {
      source  = "hashicorp/%s"
      version = "%s"
    }
  }
}
"""
VALID = """
resource "aws_s3_bucket" "a" {
  bucket = "a"
}

resource "aws_s3_bucket_versioning" "a" {
  bucket = aws_s3_bucket.a.id

  versioning_configuration {
    status = "Enabled"
  }
}
"""
CHANGES = {
    "An argument named \"buckets\" is not expected": ('bucket = "a"', 'buckets = "a"'),
    "The argument \"bucket\" is required": ("bucket = aws_s3_bucket.a.id", ""),
    "Incorrect attribute value type": ('bucket = "a"', 'bucket = ["a"]'),
    "Blocks of type \"versioning_configurations\"": ("versioning_configuration {", "versioning_configurations {"),
    "Insufficient versioning_configuration blocks": ("versioning_configuration {\n    status = \"Enabled\"\n  }", ""),
    "Too many versioning_configuration blocks": (
        "  versioning_configuration {",
        "  versioning_configuration {\n    status = \"Suspended\"\n  }\n  versioning_configuration {",
    ),
    "does not support resource type": ('resource "aws_s3_bucket" "a"', 'resource "aws_s3_buckets" "a"'),
    "no argument, nested block, or exported attribute named \"ids\"": ("aws_s3_bucket.a.id", "aws_s3_bucket.a.ids"),
}  # fmt: skip


def write(folder: Path, text: str, *, provider: str = "aws", version: str = "~> 6.28") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "main.tf").write_text(REQUIRED % (provider, provider, version) + text)
    return folder


def test_valid_configuration_is_valid(published: bool, tmp_path: Path) -> None:
    with workspace.opened(write(tmp_path / "a", VALID), modules=None, published=published) as opened:
        assert "The configuration is valid" in opened.run("validate", "-no-color")


@pytest.mark.parametrize("message", CHANGES)
def test_mistake_is_rejected(message: str, published: bool, tmp_path: Path) -> None:
    before, after = CHANGES[message]
    assert before in VALID
    folder = write(tmp_path / "a", VALID.replace(before, after))
    with (
        workspace.opened(folder, modules=None, published=published) as opened,
        pytest.raises(TerraformError) as caught,
    ):
        opened.run("validate", "-no-color")
    assert message in " ".join(str(caught.value).split())


def test_version_that_a_configuration_excludes_is_not_installed(published: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", VALID, version="< 2.0")
    if published:
        pytest.skip("the registry has old versions too")
    with (
        pytest.raises(TerraformError, match="no available releases match"),
        workspace.opened(folder, modules=None, published=published),
    ):
        pass


def described(folder: Path, published: bool) -> dict[str, Any]:
    """Types and attributes of provider `time`, without descriptions."""
    with workspace.opened(folder, modules=None, published=published) as opened:
        found = json.loads(_schema(opened))["provider_schemas"]["registry.terraform.io/hashicorp/time"]
    return {
        name: {
            attribute: {key: each[key] for key in ("type", "required", "optional", "computed") if key in each}
            for attribute, each in resource["block"]["attributes"].items()
        }
        for name, resource in found["resource_schemas"].items()
    }


def _schema(opened: Workspace) -> str:
    opened.environment.pop("SCHEMAS_OF", None)
    return opened.run("providers", "schema", "-json")


def test_schemas_from_npm_are_those_of_the_provider_built_from_its_source(published: bool, tmp_path: Path) -> None:
    if published:
        pytest.skip("both would be the registry's")
    from_npm = described(write(tmp_path / "npm", "", provider="time", version="0.13.1"), published)
    from_source = described(write(tmp_path / "source", "", provider="time", version="0.14.2"), published)
    assert len(from_npm) == 4
    assert from_npm == from_source
