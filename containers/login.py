"""`make images-login`: let the engine, syft and cosign in to ECR, with what boto3 finds: roles by OIDC too.

For twelve hours, into Docker's config.json, which all of them read. Other registries: the engine's own `login`.
"""

import argparse
import base64
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from containers.base_stand_in import BuildError
from containers.build import ENGINES, find_engine
from containers.supply import end

_ECR = re.compile(r"([0-9]{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")


def main() -> int:
    """Log in."""
    parser = argparse.ArgumentParser(prog="make images-login", description=__doc__.partition("\n")[0])
    parser.add_argument("--registry", required=True, help="as for make images")
    parser.add_argument("--engine", choices=ENGINES, help="(default: the first of these that works)")
    options = parser.parse_args()
    return end(partial(login, options.registry, options.engine or ""))


def login(registry: str, engine: str = "") -> None:
    """Log the engine in to a registry of ECR.

    Raises:
        BuildError: it is not of ECR, AWS gives no token, or the engine does not take it.
    """
    host = registry.partition("/")[0]
    user, password = read_token(host)
    engine = engine or find_engine()
    command = [engine, "login", "--username", user, "--password-stdin", host]
    if engine != "docker":
        path = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command[2:2] = ["--authfile", str(path)]
    done = subprocess.run(command, input=password, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{host}: {engine} login got exit status {done.returncode}, expected 0:\n{done.stderr[-500:]}")
    print(f"{host}: logged in with {engine}")


def read_token(host: str) -> tuple[str, str]:
    """User and password for a registry of ECR.

    Raises:
        BuildError: it is not of ECR, or AWS gives no token.
    """
    found = _ECR.fullmatch(host)
    if found is None:
        raise BuildError(f"REGISTRY: got {host}, expected one of ECR; next: <docker, podman or buildah> login {host}")
    try:
        client = boto3.client("ecr", region_name=found[2])
        token = client.get_authorization_token(registryIds=[found[1]])["authorizationData"][0]["authorizationToken"]
    except (BotoCoreError, ClientError) as exc:
        raise BuildError(f"{host}: {exc}; next: the role of this pipeline, docs/pipelines.md") from exc
    user, _, password = base64.b64decode(token).decode().partition(":")
    return user, password


if __name__ == "__main__":
    sys.exit(main())
