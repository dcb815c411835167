"""manifest.json: which files a version has, byte for byte."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import jsonschema

from registry.errors import Refused
from registry.layout import SCHEMA

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class Entry:
    """What a file must be."""

    sha256: str
    size: int


def read_manifest(data: bytes, *, where: str) -> Mapping[str, Entry]:
    """Files of a version by name, the manifest itself left out.

    Raises:
        Refused: it does not fit its schema.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Refused(f"{where}: no JSON: {exc}") from exc
    if error := next(_VALIDATOR.iter_errors(content), None):
        place = "/".join(str(part) for part in error.absolute_path)
        raise Refused(f"{where}: {place or 'content'}: {error.message:.200}")
    return {name: Entry(entry["sha256"], entry["size_bytes"]) for name, entry in content["files"].items()}
