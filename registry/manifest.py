"""manifest.json: which files a version has, byte for byte."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from registry.errors import VersionRejected
from registry.layout import SCHEMA, find_file_problem


@cache
def load_validator() -> Any:
    """The validator of the schema; the first call takes a while."""
    import jsonschema  # noqa: PLC0415 - in the synchroniser only the checking processes need it

    return jsonschema.Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class Entry:
    """Size and digest that a file must have."""

    sha256: str
    size: int


def read_content(data: bytes, *, where: str) -> dict[str, Any]:
    """Content of a manifest.json.

    Raises:
        VersionRejected: it does not fit its schema.
    """
    try:
        content: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise VersionRejected(f"{where}: no JSON: {exc}") from exc
    if error := next(load_validator().iter_errors(content), None):
        place = "/".join(str(part) for part in error.absolute_path)
        raise VersionRejected(f"{where}: {place or 'content'}: {error.message:.200}")
    for name in content["files"]:
        if reason := find_file_problem(name):  # a newline at the end, which $ of a pattern permits
            raise VersionRejected(f"{where}: {reason}")
    return content


def read_changes(data: bytes, *, where: str) -> Mapping[str, float]:
    """How the accuracy of each precision differs from that of FP32 (mAP, or top-1), as it was measured in the export.

    Raises:
        VersionRejected: as above.
    """
    precisions = read_content(data, where=where).get("precisions", {})
    return {name: each["change"] for name, each in precisions.items() if each.get("change") is not None}


def read_manifest(data: bytes, *, where: str) -> Mapping[str, Entry]:
    """Files of a version by name, the manifest itself left out.

    Raises:
        VersionRejected: it does not fit its schema.
    """
    files = read_content(data, where=where)["files"]
    return {name: Entry(entry["sha256"], entry["size_bytes"]) for name, entry in files.items()}
