"""The reader of ONNX files finds all external data, and is misled by no field."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from registry.judgement.onnx_file import MESSAGES_IN, read_facts
from tests.support.models import build_identity


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
    """Each message below ModelProto in onnx.proto that holds tensors, and the fields that hold them."""
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


def test_field_that_onnx_runtime_reads_under_another_number_is_rejected(tmp_path: Path) -> None:
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
def test_broken_numbers_of_an_onnx_file_are_reported_at_once(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=says):
        read_facts(tmp_path / "model.onnx")
