"""Layout, choice of versions, folders, proofs: what the synchroniser decides without anybody to ask."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from predictor.errors import StartError
from predictor.sync.mirror import Mirror
from predictor.sync.plan import choose
from registry import config as configs
from registry import layout
from registry.config import Policy
from registry.errors import Passing, Refused, StorageError
from registry.golden import read_golden
from registry.golden_outputs import _compare, _compare_detections
from registry.judgement.onnx_file import MESSAGES_IN, read_facts
from registry.layout import Object, gather, lacks, limit_models, read_layout, refuse_file
from registry.storage.reading import FolderStorage, read
from registry.warmup import add_warmup
from tests.support.models import build_identity

NOW = datetime.now(UTC)
LATEST = Policy(latest=1, specific=None)


def listing(*keys: str) -> list[Object]:
    return [Object(key, 1, key, NOW) for key in keys]


def test_listing_of_too_much_is_cut_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_VERSIONS", 2)
    monkeypatch.setattr(layout, "MAX_FILES", 3)
    many = [f"b/1/weights-{number}.data" for number in range(4)]
    keys = [
        "a/1/model.onnx",
        "a/3/model.onnx",
        "a/20/model.onnx",
        *many,
        "b/2/model.onnx",
        *(f"b/{n}.txt" for n in "1234"),
    ]
    models, ignored = read_layout(listing(*keys))
    assert {name: sorted(model.versions) for name, model in models.items()} == {"a": [3, 20], "b": [2]}
    assert sorted(models["b"].shared) == ["1.txt", "2.txt", "3.txt"]
    assert ignored == {
        "a/1": "got 3 versions, expected at most 2",
        "b/1": "got 4 files, expected at most 3",
        "b/4.txt": "got 4 files, expected at most 3",
    }


def test_models_that_are_known_stay_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_MODELS", 2)
    models, _ = read_layout(listing("a/1/model.onnx", "b/1/model.onnx", "z/1/model.onnx"))
    assert limit_models(models, {"z"}) == {"b": "got 3 models, expected at most 2"}
    assert limit_models(models, {"a", "b"}) == {"z": "got 3 models, expected at most 2"}


def test_listing_keeps_what_is_no_folder_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_FOLDER_OBJECTS", 3)
    monkeypatch.setattr(layout, "_STRANGE_SHOWN", 2)
    monkeypatch.setattr(layout, "MAX_MODELS", 2)
    junk = [f"junk/{number}" for number in range(5)]
    nowhere = ["a b/1", "a b/2", "$/1", "root.txt", "(/1"]
    others = [f"m{number}/1/model.onnx" for number in range(6)]
    found = gather(listing(*junk, *nowhere, *others, "zebra/1/model.onnx"), known={"zebra"})
    # Four folders that are not known, junk one of them. One file of a strange one is enough to list it.
    kept = ["a b/1", "$/1", "m0/1/model.onnx", "m1/1/model.onnx", "m2/1/model.onnx", "zebra/1/model.onnx"]
    assert [item.key for item in found.objects] == kept
    assert (found.overfull, found.beyond, found.newest) == ({"junk"}, {"m3", "m4"}, NOW)
    assert found.left_out == 3, "root.txt, ( and m5"


def test_listing_keeps_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_KEPT_OBJECTS", 5)
    many = [f"{name}/{number}/model.onnx" for name, most in (("a", 2), ("b", 3), ("c", 2)) for number in range(most)]
    found = gather(listing(*many), known=set())
    assert ([item.key[0] for item in found.objects], found.overfull) == (["a", "a", "c", "c"], {"b"})
    assert gather(listing(*many), known={"b"}).overfull == {"a"}


def test_listing_without_end_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_OBJECTS", 3)
    found = gather(listing("a/1/x.onnx", "b/1/x.onnx", "b/2/x.onnx", "z/1/x.onnx"), known={"a", "z"})
    assert ([item.key[0] for item in found.objects], found.overfull) == (["a", "b", "b"], {"z"})


def test_folders_in_folders_are_not_looked_into_for_ever(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 40)).mkdir(parents=True)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "config.pbtxt").touch()
    found = list(FolderStorage(tmp_path).walk())
    assert sorted(item.key for item in found) == ["d/d/d/d/d/...", "rows/config.pbtxt"]
    assert read_layout(found)[1].keys() == {"d/d/d/d/d/..."}


def test_mirror_keeps_to_its_limit(tmp_path: Path) -> None:
    with closing(Mirror(tmp_path / "mirror", limit_bytes=1000)) as mirror:
        first, second = (mirror.staging("rows", number, "print") for number in (1, 2))
        with pytest.raises(Refused, match=r"0\.0 MB wanted, expected at most 0\.0 MB \(PREDICTOR_MIRROR_BYTES\)"):
            reserve(mirror, first, 1001)
        with mirror.reserve(first, 600):
            with pytest.raises(Passing, match=r"mirror full: .*PREDICTOR_MIRROR_BYTES"):
                reserve(mirror, second, 500)
            with mirror.reserve(second, 400):
                (first / "1").mkdir(parents=True)
                (first / "1" / "model.onnx").write_bytes(bytes(600))  # counted once, on its way or there
        with pytest.raises(Passing, match="mirror full"):
            reserve(mirror, second, 500)
        reserve(mirror, second, 400)
        generation = mirror.assemble("rows", {1: first}, {1: "print"}, b"")
        mirror.switch("rows", generation)  # links: no byte more
        reserve(mirror, second, 300)
        mirror.clean("rows")
        mirror.switch("rows", None)
        mirror.clean("rows")
        reserve(mirror, second, 1000)


def reserve(mirror: Mirror, folder: Path, size: int) -> None:
    with mirror.reserve(folder, size):
        pass


def test_layout_takes_what_triton_reads_and_no_more() -> None:
    models, ignored = read_layout(
        listing(
            "manifest.schema.json",
            "a/",
            "a/config.pbtxt",
            "a/labels.txt",
            "a/configs/gpu.pbtxt",
            "a/warmup/input",
            "a/1/model.onnx",
            "a/1/model.data",
            "a/1/net.onnx/",
            "a/1/net.onnx/model.onnx",
            "a/1/net.onnx/weights.bin",
            "a/1/net.onnx/evil.py",
            "a/1/net.onnx/sub/model.onnx",
            "a/1/model.py",
            "a/1/libx.so",
            "a/1/sub/model.onnx",
            "a/01/model.onnx",
            "a/9223372036854775808/model.onnx",
            "a/configs/evil.py",
            "a/.export/model.onnx",
            "a/libtriton_onnxruntime.so",
            "a/triton_python_backend_stub",
            "a/1/libtriton_onnxruntime.so",
            "a b/1/model.onnx",
            "a b/config.pbtxt",
            "b",
        )
    )
    assert models.keys() == {"a"}
    assert models["a"].shared.keys() == {"config.pbtxt", "labels.txt", "configs/gpu.pbtxt", "warmup/input"}
    assert {version: set(files) for version, files in models["a"].versions.items()} == {
        1: {"model.onnx", "model.data", "net.onnx/model.onnx", "net.onnx/weights.bin"}
    }
    assert ignored.keys() == {
        "a/1/model.py",
        "a/1/libx.so",
        "a/1/sub/model.onnx",
        "a/1/net.onnx/evil.py",
        "a/1/net.onnx/sub/model.onnx",
        "a/01/model.onnx",
        "a/9223372036854775808/model.onnx",
        "a/configs/evil.py",
        "a/libtriton_onnxruntime.so",
        "a/triton_python_backend_stub",
        "a/1/libtriton_onnxruntime.so",
        "a b/",
        "b",
    }
    assert "Triton takes none that begins with 0" in ignored["a/01/model.onnx"]


@pytest.mark.parametrize(
    "name",
    ["densenet_onnx", "YOLOv8n", "resnet50.v2", "_a", "8n", "a-", "mödel", "a+b@1", "candidate.rows", "x" * 200],
)
def test_model_has_any_name_that_triton_takes(name: str) -> None:
    models, ignored = read_layout(
        listing(f"{name}/My_labels.csv", f"{name}/1/My_Net.v2.onnx", f"{name}/configs/H100.pbtxt")
    )
    assert not ignored
    assert models[name].shared.keys() == {"My_labels.csv", "configs/H100.pbtxt"}
    assert models[name].versions[1].keys() == {"My_Net.v2.onnx"}


@pytest.mark.parametrize(
    "name", ["a b", "$(reboot)", "a;b", "`a`", "a~b", "-a", "a'b", "a*", "..", "a\nb", "x" * 201, "\N{EURO SIGN}" * 67]
)
def test_name_that_means_something_to_a_shell_or_a_path_is_told(name: str) -> None:
    models, ignored = read_layout(listing(f"{name}/config.pbtxt", f"{name}/1/model.onnx"))
    assert not models
    assert ignored.keys() == {f"{name}/"}
    assert "is no model's name: expected letters" in ignored[f"{name}/"]


def test_folder_without_a_version_is_a_model_s_too() -> None:
    models, ignored = read_layout(listing("ensemble/config.pbtxt", "empty/", "odd/README.md", "later/1/"))
    assert {name: len(model.versions) for name, model in models.items()} == dict.fromkeys(
        ("ensemble", "empty", "odd", "later"), 0
    )
    assert ignored.keys() == {"odd/README.md"}


@pytest.mark.parametrize(
    ("names", "waits_for"),
    [
        ({"model.onnx"}, None),
        ({"model.xml"}, None),
        ({"net.plan", "notes.txt"}, None),
        ({"model.bin"}, "a model file (*.onnx, *.plan, *.xml): it has model.bin"),
        ({"model.data", "model.txt"}, "a model file (*.onnx, *.plan, *.xml): it has model.data, model.txt"),
        ({"model.onnx", "golden.npz"}, "manifest.json: it has golden.npz, which export writes"),
    ],
)
def test_what_a_version_without_a_manifest_waits_for(names: set[str], waits_for: str | None) -> None:
    assert lacks(names) == waits_for


@pytest.mark.parametrize(
    ("available", "policy", "current", "unfit", "apart", "wanted"),
    [
        ({1: "a", 2: "b"}, LATEST, {}, set(), {}, {2: "b"}),
        ({1: "a", 2: "b"}, LATEST, {1: "a"}, {"b"}, {}, {1: "a"}),
        # Changed into something unfit: stays as it was taken.
        ({1: "a", 2: "B"}, LATEST, {2: "b"}, {"B"}, {}, {2: "b"}),
        # Gone: the one before. None that is good: what serves.
        ({1: "a"}, LATEST, {2: "b"}, set(), {}, {1: "a"}),
        ({1: "a"}, LATEST, {2: "b"}, {"a"}, {}, {2: "b"}),
        ({1: "a", 2: "b"}, Policy(None, frozenset({1})), {2: "b"}, set(), {}, {1: "a"}),
        ({1: "a", 2: "b"}, Policy(None, frozenset({7})), {2: "b"}, set(), {}, {2: "b"}),
        ({1: "a", 2: "b"}, Policy(None, None), {}, set(), {}, {1: "a", 2: "b"}),
        # Labels that differ from the newest one's are left out, and only then.
        ({1: "a", 2: "b", 3: "c"}, Policy(2, None), {}, set(), {"b": "c"}, {1: "a", 3: "c"}),
        ({1: "a", 2: "b"}, Policy(2, None), {}, set(), {"b": "c"}, {1: "a", 2: "b"}),
    ],
)
def test_choice_of_versions(
    available: dict[int, str],
    policy: Policy,
    current: dict[int, str],
    unfit: set[str],
    apart: dict[str, str],
    wanted: dict[int, str],
) -> None:
    assert choose(available, policy, current=current, unfit=unfit, apart=apart) == wanted


def test_folder_is_listed_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    root = tmp_path / "models"
    (root / "a" / "1").mkdir(parents=True)
    (root / "a" / "1" / "model.onnx").write_bytes(b"12")
    (root / "a" / "1" / "linked.onnx").symlink_to(tmp_path / "outside" / "secret")
    (root / "b").symlink_to(tmp_path / "outside")
    objects = {item.key: item for item in list(FolderStorage(root).walk())}
    assert objects.keys() == {"a/1/model.onnx", "a/1/linked.onnx", "b"}
    models, ignored = read_layout(objects.values())
    assert set(models["a"].versions[1]) == {"model.onnx"}
    assert set(ignored) == {"a/1/linked.onnx", "b/"}


def test_file_that_changes_or_becomes_a_link_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    storage = FolderStorage(tmp_path)
    (item,) = list(storage.walk())
    assert read(storage, item, limit=10) == b"12"
    path.write_bytes(b"13")
    os.utime(path, ns=(1, 1))
    with pytest.raises(StorageError, match="changed"):
        read(storage, item, limit=10)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(StorageError):
        read(storage, item, limit=10)


def test_message_keeps_to_its_line() -> None:
    assert str(Refused("a\nb\x1b[2J")) == r"a\nb\x1b[2J"


def test_mirror_belongs_to_one_process_and_sweeps_what_is_half_made(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    with pytest.raises(StartError, match="another synchroniser"):
        Mirror(tmp_path)
    staged = mirror.staging("a", 1, "f" * 64)
    (staged / "1").mkdir(parents=True)
    (staged / "1" / "model.onnx").write_bytes(b"1")
    (staged / "config.pbtxt").write_bytes(b"own")
    mirror.offer("a", staged)
    generation = mirror.assemble("a", {1: staged}, {1: "f"}, b"composed")
    mirror.switch("a", generation)
    unused = mirror.assemble("a", {1: staged}, {1: "g"}, b"other")
    mirror.close()
    again = Mirror(tmp_path)
    assert again.names() == ["a"]
    current = again.current("a")
    assert current is not None
    assert (current.prints, (current.folder / "config.pbtxt").read_bytes()) == ({1: "f"}, b"composed")
    assert not unused.folder.exists()
    assert not list(again.trial.iterdir())
    assert not staged.exists()
    again.close()


def detections(rows: list[tuple[float, float, int]]) -> dict[str, NDArray[Any]]:
    return {
        "boxes": np.array([[[x, 10, 8, 8] for x, _, _ in rows]], np.float32),
        "scores": np.array([[score for _, score, _ in rows]], np.float32),
        "classes": np.array([[label for _, _, label in rows]], np.int32),
    }


GOLDEN = [(10.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)]


@pytest.mark.parametrize(
    ("got", "fits"),
    [
        (GOLDEN, True),
        ([(50.0, 0.6, 2), (10.2, 0.91, 1), (20.0, 0.01, 7)], True),  # another order, and chance at the end
        ([(10.0, 0.9, 2), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(10.0, 0.7, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(30.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.01, 3)], False),
        ([(10.0, 0.9, 1), (50.0, 0.6, 2), (90.0, 0.99, 3)], False),
    ],
)
def test_detections_are_found_again_whatever_their_order(got: list[tuple[float, float, int]], fits: bool) -> None:
    if fits:
        _compare_detections(detections(got), detections(GOLDEN), is_exact=True)
        return
    with pytest.raises(Refused, match="golden input"):
        _compare_detections(detections(got), detections(GOLDEN), is_exact=True)


@pytest.mark.parametrize(("difference", "fits"), [(0.0, True), (0.01, True), (0.1, False), (np.nan, False)])
def test_numbers_may_differ_a_little(difference: float, fits: bool) -> None:
    want = {"y": np.array([[0.5, 0.25]], np.float32)}
    got = {"y": want["y"] + np.float32(difference)}
    if fits:
        _compare(got, want)
        return
    with pytest.raises(Refused, match=r"output 'y'\[0, [01]\]"):
        _compare(got, want)


def test_golden_input_becomes_the_warm_up(tmp_path: Path) -> None:
    config = configs.parse(
        b'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 }'
        b'output { name: "y" data_type: TYPE_FP32 dims: 2 }',
        where="config.pbtxt",
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "golden.npz", x=x, y=x)
    add_warmup(config, read_golden(tmp_path / "golden.npz"), tmp_path)
    (sample,) = config.model_warmup
    assert (sample.batch_size, list(sample.inputs["x"].dims)) == (3, [2])
    assert (tmp_path / "warmup" / sample.inputs["x"].input_data_file).read_bytes() == x.tobytes()
    assert "is no file" in str(refuse_file(sample.inputs["x"].input_data_file)), "no file of a bucket can be in its way"


def test_external_data_is_found_wherever_a_tensor_is(tmp_path: Path) -> None:
    def tensor(name: str, location: str) -> onnx.TensorProto:
        made = onnx.TensorProto(name=name, data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
        made.external_data.add(key="offset", value="0")
        made.external_data.add(key="location", value=location)
        return made

    model = onnx.load_from_string(build_identity())
    model.graph.initializer.append(tensor("w", "model.data"))
    constant = onnx.helper.make_node("Constant", [], ["c"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor("c", "more.data"))
    branch = onnx.helper.make_graph([], "branch", [], [], initializer=[tensor("b", "../up")])
    model.graph.node.append(constant)
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_facts(path).external == {"model.data", "more.data", "../up"}
    path.write_bytes(build_identity())
    assert read_facts(path).external == set()


def messages_with_tensors() -> dict[str, dict[int, str]]:
    """Of onnx.proto itself: each message below ModelProto that holds tensors, and in which of its fields."""
    holds: dict[str, dict[int, str]] = {"TensorProto": {}}
    seen: dict[str, Any] = {}

    def visit(message: Any) -> None:
        if message.name not in seen:
            seen[message.name] = message
            for field in message.fields:
                if field.message_type:
                    visit(field.message_type)

    visit(onnx.ModelProto.DESCRIPTOR)
    found = True
    while found:
        found = False
        for name, message in seen.items():
            for field in message.fields:
                inner = field.message_type.name if field.message_type else ""
                if inner in holds and field.number not in holds.setdefault(name, {}):
                    holds[name][field.number] = inner
                    found = True
            if not holds.get(name, True) and name != "TensorProto":
                del holds[name]
    return holds


def test_every_place_of_a_tensor_is_walked() -> None:
    names = {
        "ModelProto": "model",
        "TrainingInfoProto": "training",
        "GraphProto": "graph",
        "FunctionProto": "function",
        "NodeProto": "node",
        "AttributeProto": "attribute",
        "SparseTensorProto": "sparse_tensor",
        "TensorProto": "tensor",
    }
    expected = {
        names[message]: {number: names[inner] for number, inner in fields.items()}
        for message, fields in messages_with_tensors().items()
    }
    assert dict(MESSAGES_IN) == expected | {"tensor": {13: "external_data"}}


def test_field_that_onnx_runtime_reads_under_another_number_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(build_identity())
    graph = model.graph.SerializeToString()
    assert len(graph) < 128
    model.ClearField("graph")
    # 7, the graph's, and bits above the 32 that are kept.
    hidden = model.SerializeToString() + b"\xba\x80\x80\x80\x10" + bytes([len(graph)]) + graph
    onnxruntime.InferenceSession(hidden)  # takes it
    (tmp_path / "model.onnx").write_bytes(hidden)
    with pytest.raises(ValueError, match="a field's key of"):
        read_facts(tmp_path / "model.onnx")


def test_field_of_another_type_hides_nothing(tmp_path: Path) -> None:
    # Readers pass over it as one that they do not know, and keep the location.
    model = onnx.load_from_string(build_identity())
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    entry = tensor.external_data[0].SerializeToString()
    data = model.SerializeToString()
    for spoilt, length in ((b"\x08\x07", 2), (b"\x10\x07", 2)):
        longer = data
        for message in (entry, tensor.SerializeToString(), model.graph.SerializeToString()):
            assert len(message) + length < 128
            longer = longer.replace(bytes([len(message)]) + message[:8], bytes([len(message) + length]) + message[:8])
        longer = longer.replace(entry, entry + spoilt)
        assert onnx.load_from_string(longer).graph.initializer[0].external_data[0].value == "../secret"
        (tmp_path / "model.onnx").write_bytes(longer)
        with pytest.raises(ValueError, match="of wire type 0, which ONNX does not have"):
            read_facts(tmp_path / "model.onnx")


def test_openvino_s_own_format_is_no_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    name = b"\x08\x08\x12\x06<net/>"  # a good ModelProto: its producer's name
    for beginning in (name, b"<?xml version='1.0'?><net/>", b"\n " + b" " * 32 + b"<net/>", b"\xef\xbb\xbf<net/>"):
        path.write_bytes(beginning)
        with pytest.raises((ValueError, KeyError, IndexError)):
            read_facts(path)


def test_numbers_of_an_attribute_are_skipped(tmp_path: Path) -> None:
    model = onnx.load_from_string(build_identity())
    node = model.graph.node.add(op_type="TreeEnsembleClassifier", domain="ai.onnx.ml")
    node.attribute.add(name="floats", floats=[0.5, float("nan"), 1e9] * 3)
    node.attribute.add(name="ints", ints=[0, 1, -1, 2**62, 300])
    held = node.attribute.add(name="t")
    held.t.external_data.add(key="location", value="up.data")
    held.floats.extend([1.0, 2.0])
    held.ints.extend([-5, 7])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert read_facts(tmp_path / "model.onnx").external == {"up.data"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff" * 4_000_000, "a number of more than 10 bytes"),  # each byte more made one number longer: minutes
        (b"\x08" + b"\xff" * 4_000_000, "a number of more than 10 bytes"),
        (b"\x3a" + b"\xff" * 4_000_000, "a number of more than 10 bytes"),
        (b"\x3a\x7f", "a field of 127 bytes where 0 are left"),
        (b"\x3a\x02\x0a\x7f" + bytes(200), "a field of 127 bytes where 0 are left"),
    ],
    ids=["key", "number", "length", "past the file", "past its message"],
)
def test_broken_numbers_of_an_onnx_file_are_told_at_once(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=says):
        read_facts(tmp_path / "model.onnx")


def test_what_a_broken_disk_left_in_the_mirror_keeps_out_nobody(tmp_path: Path) -> None:
    for model, content in (("cut", '{"1": '), ("list", "[]"), ("good", '{"1": "print"}')):
        generation = tmp_path / "generations" / model / "1"
        generation.mkdir(parents=True)
        (generation / "generation.json").write_text(content)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / model).symlink_to(generation)
    for notes in ("refused", "unproven", "tried"):
        (tmp_path / notes / "good.json").mkdir(parents=True)
    with closing(Mirror(tmp_path)) as mirror:
        assert mirror.names() == ["good"]
        assert (mirror.read_refused("good"), mirror.read_unproven("good"), mirror.read_fatal("good")) == ({}, {}, {})
        assert not [
            path for path in (tmp_path / "generations").iterdir() if path.name != "good" and any(path.iterdir())
        ]
