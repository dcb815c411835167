"""A version is staged if it is complete and refers to no file outside itself."""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from predictor.synchroniser.staging import Candidate, stage
from registry import config as configs
from registry.errors import Incomplete, Unsigned, VersionRejected
from registry.golden import read_golden
from registry.layout import SIGNATURE, Object, read_layout
from registry.signatures.trust import Trust, read_trust
from registry.storage.reading import FolderStorage
from tests.support.models import build_identity
from tests.support.signed import make_key
from tests.support.versions import Build, write

ONNX = 'backend: "onnxruntime"'
PLANS = 'backend: "tensorrt" cc_model_filenames { key: "9.0" value: "model.cc90.plan" }'


def staged(
    folder: Path,
    config: str,
    *,
    plans: bool = False,
    profile: str = "fp32",
    named: Mapping[str, bytes] = MappingProxyType({}),
    **files: bytes,
) -> Path:
    """Stage version 1 of a repository with this config of the model and these files, and return its folder."""
    repository = folder / "repository"
    version = repository / "some" / "1"
    version.mkdir(parents=True)
    for name, content in {name.replace("_", "."): content for name, content in files.items()}.items() | named.items():
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_bytes(content)
    (version.parent / "config.pbtxt").write_text(config)
    storage = FolderStorage(repository)
    models, ignored = read_layout(list(storage.walk()))
    assert not ignored
    own = configs.parse(config.encode(), where="config.pbtxt")
    candidate = Candidate("some", 1, models["some"], own, profile=profile, cpus=2, plans=plans)
    stage(storage, candidate, folder / "target", reserve=lambda _: nullcontext(), count=lambda _: None)
    return folder / "target" / "1"


def with_location(location: str, *, where: str) -> bytes:
    """A model with a tensor whose content is in a file of this name."""
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
    "location", ["/etc/passwd", "../other/1/model.data", "a/b.data", ".hidden", "*/_ORT_MEM_ADDR_/*", "passwd.so", ""]
)
def test_external_data_is_a_file_of_the_version(tmp_path: Path, where: str, location: str) -> None:
    with pytest.raises(VersionRejected, match="external data"):
        staged(tmp_path, ONNX, model_onnx=with_location(location, where=where))


@pytest.mark.parametrize("where", ["weights", "function", "training"])
def test_external_data_beside_the_model_is_accepted(tmp_path: Path, where: str) -> None:
    model = with_location("model.data", where=where)
    folder = staged(tmp_path, ONNX, model_onnx=model, model_data=bytes(8))
    assert {"model.onnx", "model.data"} < {path.name for path in folder.iterdir()}


def test_external_data_has_the_names_that_pytorch_gives(tmp_path: Path) -> None:
    names = ("onnx__MatMul_123", "encoder.0.weight", "encoder.0.bias", "model.onnx.data", "Model.onnx_data")
    for number, name in enumerate(names):
        model = with_location(name, where="weights")
        folder = staged(tmp_path / str(number), ONNX, model_onnx=model, named={name: bytes(8)})
        assert (folder / name).read_bytes() == bytes(8)


def test_model_that_is_a_folder_has_its_weights_in_it(tmp_path: Path) -> None:
    model = {"model.onnx/model.onnx": with_location("w.data", where="weights")}
    version = staged(tmp_path / "whole", ONNX, named=model | {"model.onnx/w.data": bytes(8)})
    assert {path.name for path in (version / "model.onnx").iterdir()} == {"model.onnx", "w.data"}
    for number, (named, reason) in enumerate(
        (
            (model | {"w.data": bytes(8)}, "waits for w.data, external data of model.onnx"),
            ({"model.onnx/net.onnx": build_identity()}, "waits for model.onnx/model.onnx"),
        )
    ):
        with pytest.raises(Incomplete, match=reason):
            staged(tmp_path / str(number), ONNX, named=named)
    outside = {"model.onnx/model.onnx": with_location("../w.data", where="weights"), "w.data": bytes(8)}
    with pytest.raises(VersionRejected, match=r"external data '\.\./w\.data': expected a file beside it"):
        staged(tmp_path / "outside", ONNX, named=outside)
    with pytest.raises(VersionRejected, match="onnxruntime alone reads a folder"):
        staged(tmp_path / "ov", 'backend: "openvino" default_model_filename: "model.onnx"', named=model)


def test_onnx_under_the_name_of_a_plan_is_rejected(tmp_path: Path) -> None:
    config = 'backend: "onnxruntime" default_model_filename: "model.plan"'
    with pytest.raises(VersionRejected, match=r"got 'model.plan', expected a file that ends in \.onnx"):
        staged(tmp_path, config, model_plan=with_location("/etc/passwd", where="weights"))


def test_plan_of_one_kind_of_gpu_is_enough(tmp_path: Path) -> None:
    assert (staged(tmp_path, PLANS, plans=True, model_cc90_plan=b"plan") / "model.cc90.plan").exists()


def test_version_without_the_file_of_its_config_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match=r"waits for model\.plan or model\.cc90\.plan"):
        staged(tmp_path, PLANS, plans=True, model_onnx=build_identity())


def test_plan_is_rejected_where_no_setting_allows_it(tmp_path: Path) -> None:
    with pytest.raises(VersionRejected, match="a plan is code"):
        staged(tmp_path, PLANS, model_cc90_plan=b"plan")


def with_engine(*, inside: str) -> bytes:
    """A model with a node that holds an engine."""
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
def test_graph_with_an_engine_is_rejected_where_no_setting_allows_plans(tmp_path: Path, inside: str) -> None:
    model = with_engine(inside=inside)
    with pytest.raises(VersionRejected, match="EPContext, which hold compiled engines"):
        staged(tmp_path / "refused", ONNX, model_onnx=model)
    assert staged(tmp_path / "allowed", ONNX, plans=True, model_onnx=model).exists()


def test_config_that_grows_too_large_when_composed_is_rejected(tmp_path: Path) -> None:
    text = "\t" * 700_000  # which is written as two signs each
    metadata = f'parameters {{ key: "metadata" value {{ string_value: "{{}} #{text}" }} }}'
    with pytest.raises(
        VersionRejected, match=r"config\.pbtxt: got 14\d+ bytes when it is composed, expected at most 1048576"
    ):
        staged(tmp_path, f"{ONNX} {metadata}", model_onnx=build_identity())


def archive(*entries: tuple[str, NDArray[Any]], compression: int = zipfile.ZIP_STORED) -> bytes:
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w", compression) as file, warnings.catch_warnings(action="ignore"):
        for name, array in entries:
            content = io.BytesIO()
            np.save(content, array)
            file.writestr(f"{name}.npy", content.getvalue())
    return bundle.getvalue()


ROW = np.ones((1, 2), np.float32)
BATCHED = f"""{ONNX} max_batch_size: 8 input {{ name: "x" data_type: TYPE_FP32 dims: 2 }}
    output {{ name: "y" data_type: TYPE_FP32 dims: 2 }}"""


@pytest.mark.parametrize(
    ("golden", "says"),
    [
        (archive(*[("x", ROW)] * 3, ("y", ROW)), "got 4 arrays, expected at most 256, each once"),
        (archive(("x", ROW), *[(f"y{number}", ROW) for number in range(256)]), "got 257 arrays, expected at most 256"),
        (archive(("x", np.ones((257, 2), np.int8)), ("y", ROW)), "'x': got 257 items, expected at most 256"),
        (archive(("x", np.ones((0, 2), np.float32)), ("y", ROW)), "'x': got no item, expected one or more"),
        (archive(("x", np.zeros((1, 2**23))), ("y", ROW)), "bytes unpacked, expected at most 67108864"),
    ],
    ids=["twice", "many", "rows", "none", "large"],
)
def test_golden_that_would_take_long_is_rejected_before_any_request(tmp_path: Path, golden: bytes, says: str) -> None:
    with pytest.raises(VersionRejected, match=says):
        staged(tmp_path, BATCHED, model_onnx=build_identity(), golden_npz=golden)


def test_golden_is_written_as_it_was_read(tmp_path: Path) -> None:
    golden = archive(("x", ROW), ("y", ROW), ("file", np.arange(3)), compression=zipfile.ZIP_DEFLATED)
    folder = staged(tmp_path, BATCHED, model_onnx=build_identity(), golden_npz=golden)
    with zipfile.ZipFile(folder / "golden.npz") as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}
    assert {name: array.tolist() for name, array in read_golden(folder / "golden.npz").items()} == {
        "x": ROW.tolist(),
        "y": ROW.tolist(),
        "file": [0, 1, 2],
    }


def test_profile_is_judged_as_it_serves(tmp_path: Path) -> None:
    large = f'{ONNX} max_batch_size: 1 input {{ name: "x" data_type: TYPE_FP32 dims: 67108864 }}'
    files = {"config_pbtxt": large.encode(), "fast_pbtxt": b'backend: "openvino" max_batch_size: 1048576'}
    with pytest.raises(
        VersionRejected, match=r"fast\.pbtxt over config\.pbtxt: max_batch_size: got 1048576 of input 'x'"
    ):
        staged(tmp_path, ONNX, profile="fast", model_onnx=build_identity(), **files)  # type: ignore[arg-type]


def test_name_of_engines_changes_with_the_weights(tmp_path: Path) -> None:
    options = 'parameters { key: "trt_engine_cache_enable" value: "1" }'
    text = f"""{ONNX} optimization {{ execution_accelerators {{
        gpu_execution_accelerator {{ name: "tensorrt" {options} }} }} }}"""
    prefixes = set()
    for name, files in {"a": {"weights_bin": b"1"}, "b": {"weights_bin": b"2"}, "c": {"weights_data": b"2"}}.items():
        folder = staged(tmp_path / name, text, model_onnx=build_identity(), **files)  # type: ignore[arg-type]
        config = configs.parse((folder / "config.pbtxt").read_bytes(), where="config.pbtxt")
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        prefixes.add(accelerator.parameters["trt_engine_cache_prefix"])
    assert len(prefixes) == 3


def test_equal_content_under_two_numbers_is_two_versions(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "rows" / str(number)).mkdir(parents=True)
        (tmp_path / "rows" / str(number) / "model.onnx").write_bytes(b"the same")
    objects = [replace(item, etag="the same") for item in FolderStorage(tmp_path).walk()]  # as S3 has it: an MD5
    folders, _ = read_layout(objects)
    candidates = [Candidate("rows", number, folders["rows"], None, profile="fp32", cpus=2) for number in (1, 2)]
    assert len({candidate.fingerprint for candidate in candidates}) == 2


def test_version_that_is_signed_again_is_the_same_version(tmp_path: Path) -> None:
    folder = write(tmp_path, "rows", Build(1))

    def fingerprint() -> str:
        folders, _ = read_layout(FolderStorage(tmp_path).walk())
        return Candidate("rows", 1, folders["rows"], None, profile="fp32", cpus=2).fingerprint

    before = fingerprint()
    (folder / SIGNATURE).write_text("{}")
    assert fingerprint() == before


def test_policy_changes_what_is_staged_where_files_are_beside_the_versions(tmp_path: Path) -> None:
    write(tmp_path, "rows", Build(1))

    def fingerprints() -> list[str]:
        folders, _ = read_layout(FolderStorage(tmp_path).walk())
        trusts = (None, Trust(()))
        return [
            Candidate("rows", 1, folders["rows"], None, profile="fp32", cpus=2, trust=trust).fingerprint
            for trust in trusts
        ]

    without, signed = fingerprints()
    assert without == signed
    (tmp_path / "rows" / "labels.txt").write_text("zero\n")
    with_labels, signed_with_labels = fingerprints()
    assert with_labels != without
    assert signed_with_labels == signed


class Noting(FolderStorage):
    """A storage that notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[str] = []

    @contextmanager
    def open(self, source: Object) -> Iterator[BinaryIO]:
        self.read.append(source.key)
        with super().open(source) as stream:
            yield stream


def test_signature_is_judged_before_any_config_is_read(tmp_path: Path) -> None:
    key = make_key(tmp_path, "key")
    (write(tmp_path / "repository", "rows", Build(1)) / SIGNATURE).write_text("{}")
    storage = Noting(tmp_path / "repository")
    folders, _ = read_layout(storage.walk())
    candidate = Candidate("rows", 1, folders["rows"], None, profile="fp32", cpus=2, trust=read_trust(key.public))
    with pytest.raises(Unsigned):
        stage(storage, candidate, tmp_path / "target", reserve=lambda _: nullcontext(), count=lambda _: None)
    assert sorted(storage.read) == ["rows/1/manifest.json", "rows/1/model.sig"]


class Forging(FolderStorage):
    """A storage that gives another config.pbtxt where it is read first."""

    def __init__(self, root: Path, text: bytes) -> None:
        super().__init__(root)
        self._texts = [text]

    @contextmanager
    def open(self, source: Object) -> Iterator[BinaryIO]:
        if source.key.endswith("/1/config.pbtxt") and self._texts:
            yield io.BytesIO(self._texts.pop())
        else:
            with super().open(source) as stream:
                yield stream


def test_config_that_is_judged_is_the_one_that_the_manifest_lists(tmp_path: Path) -> None:
    folder = write(tmp_path / "repository", "rows", Build(1))
    storage = Forging(tmp_path / "repository", (folder / "config.pbtxt").read_bytes().replace(b"build-1-", b"forged-"))
    folders, _ = read_layout(storage.walk())
    candidate = Candidate("rows", 1, folders["rows"], None, profile="fp32", cpus=2)
    with pytest.raises(VersionRejected, match=r"config.pbtxt: sha256 got"):
        stage(storage, candidate, tmp_path / "target", reserve=lambda _: nullcontext(), count=lambda _: None)
