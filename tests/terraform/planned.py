"""What a configuration plans, with the words that stand for values of AWS replaced by real ones."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tests.terraform.workspace import Workspace

_RUN = Path(__file__).with_name("planned.tftest.hcl")
_LISTS = {"actions": "Action", "not_actions": "NotAction", "resources": "Resource", "not_resources": "NotResource"}
_WORD = re.compile(r"(?<![\w-])[a-z0-9]{8}(?![\w-])")  # as `mock_provider` makes them
Values = dict[str, Any]


class Planned:
    """Resources and outputs of one run, by type and address.

    `mock_provider` gives a random word for each value that AWS would give; `name` says what it gave instead.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._resources = list(_walk(state["root_module"]))
        self._outputs = {name: each["value"] for name, each in state["outputs"].items()}
        self._named: dict[str, str] = {}
        self._documents = {each["json"]: each for each in self.of_type("aws_iam_policy_document", mode="data")}

    def __len__(self) -> int:
        return sum(each["mode"] == "managed" for each in self._resources)

    def of_type(self, kind: str, *, mode: str = "managed", below: str = "") -> list[Values]:
        """The values of every resource of a type, with real values where they are known; `below`: of a module."""
        found = (each for each in self._resources if each["type"] == kind and each["mode"] == mode)
        return [self.real(each["values"]) for each in found if each["address"].startswith(below)]

    def name(self, planned: Values, **given: str) -> None:
        """Say which values AWS gave to a resource."""
        self._named |= {planned[attribute]: value for attribute, value in given.items()}

    def name_others(self, created: Collection[str], prefix: str) -> None:
        """Give an ARN to resources of types that are not created."""
        for each in self._resources:
            arn = each["values"].get("arn") or ""
            if each["mode"] == "managed" and each["type"] not in created and arn and not arn.startswith("arn:"):
                self._named[arn] = f"{prefix}:{each['type']}/{arn}"

    def output(self, name: str) -> Any:
        """An output of the configuration."""
        return self.real(self._outputs[name])

    def policy(self, word: str) -> str:
        """The JSON of a policy: written in the configuration, or rendered from its statements."""
        return json.dumps(self._document(word)) if word in self._documents else word

    def real(self, value: Any) -> Any:
        """A value with what AWS gave."""
        if isinstance(value, dict):
            return {name: self.real(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.real(each) for each in value]
        if isinstance(value, str):
            return _WORD.sub(lambda word: self._named.get(word[0], word[0]), value)
        return value

    def _document(self, word: str) -> Values:
        document = self._documents[word]
        statements = [
            statement
            for source in (document["source_policy_documents"] or []) + (document["override_policy_documents"] or [])
            for statement in json.loads(self.policy(source))["Statement"]
        ]
        statements += [_statement(each) for each in self.real(document["statement"])]
        return {"Version": "2012-10-17", "Statement": statements}


def run(workspace: Workspace) -> Planned:
    """Apply the configuration to mocked providers, by `planned.tftest.hcl`.

    Raises:
        TerraformError: the run failed.
    """
    folder = workspace.folder / "planned"
    folder.mkdir()
    (folder / _RUN.name).write_text(_RUN.read_text())
    for line in workspace.run("test", "-json", "-verbose", f"-test-directory={folder.name}").splitlines():
        message = json.loads(line)
        if message["type"] == "test_state":
            return Planned(message["test_state"])
    raise AssertionError("got no state, expected one of the run")


def _walk(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", [])
    for each in module.get("child_modules", []):
        yield from _walk(each)


def _statement(block: Values) -> Values:
    """A block of `aws_iam_policy_document` as JSON."""
    made: Values = {"Effect": block["effect"] or "Allow"}
    if block["sid"]:
        made["Sid"] = block["sid"]
    made |= {name: block[key] for key, name in _LISTS.items() if block[key]}
    if principals := {each["type"]: each["identifiers"] for each in block["principals"]}:
        made["Principal"] = "*" if principals == {"*": ["*"]} else principals
    for each in block["condition"]:
        made.setdefault("Condition", {}).setdefault(each["test"], {})[each["variable"]] = each["values"]
    return made
