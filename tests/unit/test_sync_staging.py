"""A version is staged where all of it is there and nothing of it reaches beyond it."""

from contextlib import nullcontext
from pathlib import Path

import onnx
import pytest

from predictor.sync.staging import Request, stage
from predictor.sync.storage import FolderStorage
from registry import config as configs
from registry.errors import Incomplete, Refused
from registry.layout import read_layout
from tests.support.models import build_identity

ONNX = 'backend: "onnxruntime"'
PLANS = 'backend: "tensorrt" cc_model_filenames { key: "9.0" value: "model.cc90.plan" }'


def staged(folder: Path, config: str, *, plans: bool = False, **files: bytes) -> Path:
    """Stage version 1 of a repository with this config of the model and these files, and return its folder."""
    repository = folder / "repository"
    version = repository / "some" / "1"
    version.mkdir(parents=True)
    for name, content in files.items():
        (version / name.replace("_", ".")).write_bytes(content)
    (version.parent / "config.pbtxt").write_text(config)
    storage = FolderStorage(repository)
    models, ignored = read_layout(list(storage.walk()))
    assert not ignored
    own = configs.parse(config.encode(), where="config.pbtxt")
    request = Request("some", 1, models["some"], own, profile="fp32", cpus=2, plans=plans)
    stage(storage, request, folder / "target", reserve=lambda _: nullcontext(), count=lambda _: None)
    return folder / "target" / "1"


def with_location(location: str, *, where: str) -> bytes:
    """A model with a tensor whose content is said to be in a file."""
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model = onnx.load_from_string(build_identity())
    if where == "weights":
        model.graph.initializer.append(tensor)
    elif where == "function":
        model.functions.add(name="f", domain="d").attribute_proto.add(name="a", t=tensor)
    else:
        model.training_info.add().algorithm.initializer.append(tensor)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("where", ["weights", "function", "training"])
@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../other/1/model.data", "a/b.data", ".hidden", "*/_ORT_MEM_ADDR_/*", "passwd", ""]
)
def test_external_data_is_a_file_of_the_version(tmp_path: Path, where: str, location: str) -> None:
    with pytest.raises(Refused, match="external data"):
        staged(tmp_path, ONNX, model_onnx=with_location(location, where=where))


@pytest.mark.parametrize("where", ["weights", "function", "training"])
def test_external_data_beside_the_model_is_taken(tmp_path: Path, where: str) -> None:
    model = with_location("model.data", where=where)
    folder = staged(tmp_path, ONNX, model_onnx=model, model_data=bytes(8))
    assert {"model.onnx", "model.data"} < {path.name for path in folder.iterdir()}


def test_onnx_under_the_name_of_a_plan_is_refused(tmp_path: Path) -> None:
    config = 'backend: "onnxruntime" default_model_filename: "model.plan"'
    with pytest.raises(Refused, match=r"got 'model.plan', expected a file that ends in \.onnx"):
        staged(tmp_path, config, model_plan=with_location("/etc/passwd", where="weights"))


def test_plan_of_one_kind_of_gpu_is_enough(tmp_path: Path) -> None:
    assert (staged(tmp_path, PLANS, plans=True, model_cc90_plan=b"plan") / "model.cc90.plan").exists()


def test_version_without_any_file_that_its_config_names_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match=r"waits for model\.plan or model\.cc90\.plan"):
        staged(tmp_path, PLANS, plans=True, model_onnx=build_identity())


def test_plan_is_refused_where_no_setting_allows_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="a plan is code"):
        staged(tmp_path, PLANS, model_cc90_plan=b"plan")


def with_engine(*, inside: str) -> bytes:
    """A model one of whose nodes holds an engine."""
    model = onnx.load_from_string(build_identity())
    engine = onnx.helper.make_node("EPContext", ["x"], ["e"], domain="com.microsoft", ep_cache_context=b"engine")
    if inside == "graph":
        model.graph.node.append(engine)
    elif inside == "function":
        model.functions.add(name="f", domain="d").node.append(engine)
    else:
        branch = onnx.helper.make_graph([engine], "b", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("inside", ["graph", "function", "branch"])
def test_graph_that_holds_an_engine_is_refused_where_no_setting_allows_plans(tmp_path: Path, inside: str) -> None:
    model = with_engine(inside=inside)
    with pytest.raises(Refused, match="EPContext, which hold compiled engines"):
        staged(tmp_path / "refused", ONNX, model_onnx=model)
    assert staged(tmp_path / "allowed", ONNX, plans=True, model_onnx=model).exists()
