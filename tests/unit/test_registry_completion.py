"""Configs are completed with the tensors that a backend reports, and with nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from registry import config as configs
from registry.errors import VersionRejected
from registry.judgement.completion import complete_config

X = {"name": "x", "data_type": "TYPE_FP32", "dims": ["2"]}
Y = {"name": "y", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}


def complete(folder: Path, text: str, fields: str) -> Any:
    """Complete the config of version 3 of a model; the config."""
    (folder / "3").mkdir(parents=True)
    for path in (folder, folder / "3"):
        (path / "config.pbtxt").write_text(text)
    os.link(folder / "config.pbtxt", folder.with_suffix(".linked"))
    complete_config(folder, fields)
    written = [(path / "config.pbtxt").read_bytes() for path in (folder, folder / "3")]
    assert written[0] == written[1]
    assert folder.with_suffix(".linked").read_text() == text, "it may be in use"
    return configs.parse(written[0], where="config.pbtxt")


def test_missing_fields_are_completed(tmp_path: Path) -> None:
    fields = json.dumps({"max_batch_size": 4, "dynamic_batching": {}, "input": [X], "output": [Y]})
    config = complete(tmp_path / "m", 'backend: "onnxruntime"', fields + "\n\nAt:\n  model.py(65): initialize\n")
    assert (config.backend, config.max_batch_size, config.HasField("dynamic_batching")) == ("onnxruntime", 4, True)
    assert [(tensor.name, list(tensor.dims)) for tensor in (*config.input, *config.output)] == [("x", [2]), ("y", [1])]
    assert [tensor.HasField("reshape") for tensor in (config.input[0], config.output[0])] == [False, True]


def test_fields_of_the_config_stay(tmp_path: Path) -> None:
    own = 'max_batch_size: 8 input { name: "own" dims: 5 } dynamic_batching { max_queue_delay_microseconds: 7 }'
    fields = {"max_batch_size": 4, "dynamic_batching": {}, "input": [X], "output": [Y]}
    config = complete(tmp_path / "m", own, json.dumps(fields))
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (8, 7)
    assert [tensor.name for tensor in (*config.input, *config.output)] == ["own", "y"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "the tensors that config.pbtxt lacks: "),
        ('{"input": 3}', "the tensors that config.pbtxt lacks: "),
        ('{"unknown": 3}', "unknown"),
        ('{"backend": "python"}', "backend: got 'python'"),
        (json.dumps({"input": [X | {"dims": [2**40]}]}), r"input\[0\].dims\[0\]: got 1099511627776"),
    ],
)
def test_invalid_fields_reject_the_version(tmp_path: Path, fields: str, reason: str) -> None:
    with pytest.raises(VersionRejected, match=reason):
        complete(tmp_path / "m", 'backend: "onnxruntime"', fields)
