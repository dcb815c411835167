"""Completes the config of a version by what the backend that has loaded it says of its tensors."""

import json
from pathlib import Path

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry import config as configs
from registry.errors import VersionRejected
from registry.judgement.sandbox_process import confined
from registry.layout import CONFIG


def complete_config(folder: Path, fields: str) -> None:
    """Add what is missing to the config of a model's folder, and to the copy in each of its versions.

    Args:
        folder: as `complete_version` left it.
        fields: JSON of a `ModelConfig` with tensors and batch size, and more text. It may be of a process that the
            model controls.

    Raises:
        VersionRejected: they are invalid.
        OSError, Defect: see `confined`.
    """
    confined(_complete_config, folder, fields)


def _complete_config(folder: Path, fields: str) -> None:
    try:
        found = json_format.ParseDict(json.JSONDecoder().raw_decode(fields)[0], ModelConfig())
    except (ValueError, json_format.ParseError, RecursionError) as exc:
        raise VersionRejected(f"the tensors that {CONFIG} lacks: {exc}") from exc
    configs.check(found, where=f"the tensors that {CONFIG} lacks")
    for path in (folder / CONFIG, *folder.glob(f"*/{CONFIG}")):
        text = configs.write(configs.complete(configs.parse(path.read_bytes(), where=CONFIG), found))
        new = path.with_suffix(".new")  # another folder may have a link to the file
        new.write_bytes(text)
        new.replace(path)
