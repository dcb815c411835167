import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from export.errors import FAILURES, ExportError
from export.writer.config import read_config, to_text
from export.writer.manifest import digest
from export.writer.repository import write_version
from export.writer.versions import latest, read_complete
from registry.layout import SCHEMA_FILE as SCHEMA
from tests.support.detectors import build_detector
from tests.support.exported import FILES, version


def test_version_folder_is_complete_and_its_manifest_fits_the_schema(tmp_path: Path) -> None:
    folder = write_version(tmp_path / "repository", version())
    assert folder == tmp_path / "repository" / "tiny" / "1"
    assert {path.name for path in folder.iterdir()} == FILES
    manifest = json.loads((folder / "manifest.json").read_bytes())
    jsonschema.validate(manifest, json.loads(SCHEMA.read_bytes()))
    assert manifest["files"].keys() == FILES - {"manifest.json"}
    assert manifest["files"]["model.onnx"]["sha256"] == digest(folder / "model.onnx")
    assert (manifest["model"], manifest["version"], manifest["interface"]) == ("tiny", "1", "fused")
    assert {path.name for path in folder.parent.iterdir()} == {"1", "config.pbtxt"}


@pytest.mark.parametrize(
    ("present", "number"), [([], 1), (["1"], 2), (["2", "10"], 11), (["7", "not-a-number", ".hidden"], 8)]
)
def test_next_number_is_above_the_highest(tmp_path: Path, present: list[str], number: int) -> None:
    for name in present:
        (tmp_path / "tiny" / name).mkdir(parents=True)
        (tmp_path / "tiny" / name / "model.onnx").write_bytes(b"as it was")
    assert write_version(tmp_path, version()) == tmp_path / "tiny" / str(number)
    for name in present:
        assert (tmp_path / "tiny" / name / "model.onnx").read_bytes() == b"as it was"


def test_config_of_the_model_follows_the_newest_version(tmp_path: Path) -> None:
    write_version(tmp_path, version(interface="ultralytics"))
    folder = write_version(tmp_path, version())
    path = tmp_path / "tiny" / "config.pbtxt"
    text = path.read_text(encoding="utf-8")
    assert text == (folder / "config.pbtxt").read_text(encoding="utf-8") == to_text(version().config)
    assert read_config(path).input[0].name == "image"


def test_invalid_config_of_the_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text("name: tiny")
    with pytest.raises(FAILURES, match=re.escape(str(path))):
        write_version(tmp_path, version())
    assert path.read_text() == "name: tiny"


def test_config_of_the_model_keeps_its_version_policy(tmp_path: Path) -> None:
    write_version(tmp_path, version())
    path = tmp_path / "tiny" / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8") + "version_policy { latest { num_versions: 3 } }\n")
    write_version(tmp_path, version(interface="ultralytics"))
    config = read_config(path)
    assert (config.version_policy.latest.num_versions, config.input[0].name) == (3, "images")


def test_config_of_a_pinned_model_stays(tmp_path: Path) -> None:
    write_version(tmp_path, version())
    path = tmp_path / "tiny" / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8") + "version_policy { specific { versions: 1 } }\n")
    before = path.read_bytes()
    write_version(tmp_path, version(interface="ultralytics"))
    assert path.read_bytes() == before


def test_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    impossible = replace(version(), parity={"boxes_px": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_version(tmp_path, impossible)
    assert list(tmp_path.iterdir()) == []
    write_version(tmp_path, version())
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_version(tmp_path, impossible)
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"1", "config.pbtxt"}


@pytest.mark.parametrize("damage", ["change", "remove", "no-manifest", "broken-manifest"])
def test_damaged_version_is_not_complete(tmp_path: Path, damage: str) -> None:
    folder = write_version(tmp_path, version())
    assert latest(tmp_path / "tiny") == folder
    assert read_complete(folder) is not None
    match damage:
        case "change":
            (folder / "parity.json").write_text("{}")
        case "remove":
            (folder / "golden.npz").unlink()
        case "no-manifest":
            (folder / "manifest.json").unlink()
        case "broken-manifest":
            (folder / "manifest.json").write_text('{"files": []}')
    assert read_complete(folder) is None


def test_config_that_triton_would_not_load_with_the_graph_is_not_published(tmp_path: Path) -> None:
    # Like a dynamic file of Ultralytics: no dim of the output is fixed, where the config says 4 + classes.
    graph = build_detector()
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "free"
    with pytest.raises(ExportError, match=r"tensor output0: the graph declares \[-1, -1, -1\], expected \[-1, 7, -1\]"):
        write_version(tmp_path, replace(version(interface="ultralytics"), graph=graph))
    assert not list(tmp_path.iterdir())
