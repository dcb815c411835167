"""Providers that have the schemas of the real ones, in a folder that Terraform installs from.

What npm has of a provider (`packages/`, by hash) becomes a schema (`bindings.py`), the program of `provider/` serves it
to Terraform under the provider's own name and version. `hashicorp/time` is on the Go module proxy: it is built from its
source, and its schema shows that those from npm are right.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.terraform.bindings import Bindings, Schema

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "terraform"
REAL_TIME = "github.com/hashicorp/terraform-provider-time"

_KINDS = {
    "TerraformResource": "resource_schemas",
    "TerraformDataSource": "data_source_schemas",
    "TerraformEphemeralResource": "ephemeral_resource_schemas",
}
# Served by the provider in protocol 6, with attributes inside of attributes.
_NESTED_ATTRIBUTES = {"helm"}
# Is no part of the bindings: internal/provider of the AWS provider.
_META: dict[str, Schema] = {"aws": {"user_agent": {"type": ["list", "string"], "optional": True}}}
# The bindings have `any` for these blocks, because of their depth, and the same statement in full for another resource.
_STATEMENTS = ("aws_wafv2_web_acl", "aws_wafv2_rule_group")


def make() -> Path:
    """Fill the mirror, unless it was made from the same packages and code; returns it.

    Raises:
        subprocess.CalledProcessError: npm or Go failed; its message is on stderr.
    """
    inputs = [*sorted(HERE.glob("p*/*")), HERE / "bindings.py", Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    made = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            shutil.rmtree(CACHE / "unfinished", ignore_errors=True)
            _fill(CACHE / "unfinished")
            (CACHE / "unfinished").rename(made)
    return made / "mirror"


def _fill(into: Path) -> None:
    packages = _install(into / "npm")
    server = _build(".", into / "programs" / "schemas")
    platform = json.loads(_output("terraform", "version", "-json"))["platform"]
    for package in sorted(packages.glob("@*/provider-*")):
        source, version, found = read(package)
        folder = _folder(into / "mirror", source, version, platform)
        (folder / "schema.json").write_text(json.dumps(found))
        (folder / f"terraform-provider-{source.rpartition('/')[2]}_v{version}").hardlink_to(server)
    real = json.loads(_output("go", "list", "-m", "-json", REAL_TIME, cwd=HERE / "provider"))["Version"].removeprefix(
        "v"
    )
    folder = _folder(into / "mirror", "registry.terraform.io/hashicorp/time", real, platform)
    (folder / f"terraform-provider-time_v{real}").hardlink_to(_build(REAL_TIME, into / "programs" / "time"))
    shutil.rmtree(packages)


def read(package: Path) -> tuple[str, str, Schema]:
    """Source and version of the provider whose bindings a package has, and its schema."""
    about = json.loads((package / "package.json").read_text())
    provider = about.get("cdktn", about["cdktf"])["provider"]
    name = provider["name"].rpartition("/")[2]
    found: dict[str, Any] = {"provider": {}, **{kind: {} for kind in _KINDS.values()}}
    for folder in filter(Path.is_dir, sorted((package / "lib").iterdir())):
        for base, type_name, block in Bindings(folder, nested_attributes=name in _NESTED_ATTRIBUTES).schemas():
            if base == "TerraformProvider":
                found["provider"] = {"block": block}
            else:
                found[_KINDS[base]][type_name] = {"block": block}
    if name in _META:
        found["provider_meta"] = {"block": {"attributes": _META[name]}}
    _add_statements(found["resource_schemas"])
    return provider["name"], provider["version"], found


def _add_statements(resources: dict[str, Any]) -> None:
    if "aws_wafv2_web_acl_rule" not in resources:
        return
    statement = resources["aws_wafv2_web_acl_rule"]["block"]["block_types"]["statement"]
    for name in _STATEMENTS:
        rule = resources[name]["block"]["block_types"]["rule"]["block"]
        del rule["attributes"]["statement"]
        rule["block_types"]["statement"] = {**statement, "min_items": 1, "max_items": 1}


def _install(folder: Path) -> Path:
    """The packages of the lock, each compared with its hash; no script of theirs runs."""
    print("installing the bindings of the providers: 650 MB, removed again (.cache/terraform)", file=sys.stderr)
    shutil.copytree(HERE / "packages", folder)
    options = ["--ignore-scripts", "--omit=peer", "--legacy-peer-deps", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "ci", *options], cwd=folder, check=True, stdout=sys.stderr)
    return folder / "node_modules"


def _build(package: str, program: Path) -> Path:
    command = ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(program), package]
    subprocess.run(command, cwd=HERE / "provider", check=True)
    return program


def _folder(mirror: Path, source: str, version: str, platform: str) -> Path:
    folder = mirror / source / version / platform
    folder.mkdir(parents=True)
    return folder


def _output(*command: str, cwd: Path = HERE) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
