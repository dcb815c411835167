"""The openvino backend in the real embedded Triton: models that it serves, and models that it rejects."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.support.models import CPU, FLOAT_IO, build, build_identity, tensor, write_model
from tests.support.triton import start_triton

BASE = CPU + 'backend: "openvino"\ndefault_model_filename: "model.onnx"\n'
MIXED_IO = """
input { name: "x" data_type: TYPE_UINT8 dims: [ -1, 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 3 ] }
output { name: "n" data_type: TYPE_INT64 dims: [ 1 ] }
"""


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


def build_mixed() -> bytes:
    """Return `y = float(x) / 2` for any number of rows, and `n`, how many."""
    return build(
        [
            helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "half"], ["y"]),
            helper.make_node("Shape", ["x"], ["n"], start=1, end=2),
        ],
        [tensor("x", ["batch", "rows", 3], TensorProto.UINT8)],
        [tensor("y", ["batch", "rows", 3]), tensor("n", [1], TensorProto.INT64)],
        constants={"half": np.array(0.5, np.float32)},
    )


def build_product() -> bytes:
    """Return `y = x @ w` with one weight of 1/3, which bf16 rounds."""
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", ["n", 64])],
        [tensor("y", ["n", 64])],
        constants={"w": np.full((64, 64), 1 / 3, np.float32)},
    )


RESHAPED_IO = FLOAT_IO.replace("[ 2 ]", "[ 5 ]", 1).replace("[ 2 ]", "[ -1 ]")
EXTRA_INPUT = 'input { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }\n'
WIDE_IO = FLOAT_IO.replace("[ 2 ]", "[ 64 ]")
EVERY_OPTION = "".join(
    parameter(name, value)
    for name, value in {
        "INFERENCE_NUM_THREADS": "2",
        "NUM_STREAMS": "AUTO",
        "PERFORMANCE_HINT": "latency",
        "SKIP_OV_DYNAMIC_BATCHSIZE": "YES",
    }.items()
)
# name: (ONNX file or None for y = x, config)
SERVED: dict[str, tuple[bytes | None, str]] = {
    "one": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO),
    "options": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO + EVERY_OPTION),
    "exact": (None, BASE + "max_batch_size: 3\n" + FLOAT_IO),
    "padded": (None, BASE + "max_batch_size: 4\n" + FLOAT_IO + parameter("ENABLE_BATCH_PADDING", "yes")),
    "auto": (None, BASE),
    "fixed": (build_identity([1, 2]), BASE + "max_batch_size: 3\n" + FLOAT_IO),
    "free-in-config": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("[ 2 ]", "[ -1 ]", 1)),
    "device": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO + parameter("TARGET_DEVICE", "Auto")),
    "reshape": (
        build_identity([1, "free"]),
        BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("[ 2 ]", "[ 5 ]") + parameter("RESHAPE_IO_LAYERS", "YES"),
    ),
    "converted": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("FP32", "UINT8")),
    "mixed": (build_mixed(), BASE + MIXED_IO.replace("[ -1, 3 ]", "[ -1, -1, 3 ]")),
    "bf16": (build_product(), BASE + "max_batch_size: 1\n" + WIDE_IO + parameter("HINT_BF16", "YES")),
    "streams": (
        None,
        BASE.replace("count: 1", "count: 2")
        + "max_batch_size: 1\n"
        + FLOAT_IO
        + parameter("NUM_STREAMS", "2")
        + parameter("INFERENCE_NUM_THREADS", "2"),
    ),
}
# the same, and what the reason must hold
REJECTED: dict[str, tuple[bytes | None, str, list[str]]] = {
    "corrupt": (b"not a model", BASE + FLOAT_IO, ["model.onnx", "cannot be read"]),
    "missing": (None, CPU + 'backend: "openvino"\n' + FLOAT_IO, ["unable to find", "model.xml"]),
    "threads": (None, BASE + FLOAT_IO + parameter("INFERENCE_NUM_THREADS", "many"), ["'many'"]),
    "half": (None, BASE + FLOAT_IO + parameter("HINT_BF16", "maybe"), ["must be YES", "'maybe'"]),
    "hint": (None, BASE + FLOAT_IO + parameter("PERFORMANCE_HINT", "FAST"), ["LATENCY", "'fast'"]),
    "number-of-streams": (None, BASE + FLOAT_IO + parameter("NUM_STREAMS", "-1"), ["NUM_STREAMS", "'-1'"]),
    "extension": (None, BASE + FLOAT_IO + parameter("CPU_EXTENSION_PATH", "/x.so"), ["CPU_EXTENSION_PATH"]),
    "input-dims": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("[ 2 ]", "[ 3 ]"), ["'x'", "[1, 3]"]),
    "rank": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("[ 2 ]", "[ 1, 2 ]"), ["'x'", "[1, 1, 2]"]),
    "no-device": (
        None,
        BASE + "max_batch_size: 1\n" + FLOAT_IO + parameter("TARGET_DEVICE", "npu"),
        ["got NPU, "],
    ),
    "inputs": (None, BASE + "max_batch_size: 1\n" + FLOAT_IO + EXTRA_INPUT, ["2 inputs", "the model takes 1"]),
    "fp64": (
        build_identity(datatype=TensorProto.DOUBLE),
        BASE + "max_batch_size: 1\n" + FLOAT_IO.replace("FP32", "FP64"),
        ["TYPE_FP64"],
    ),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.InferenceServerClient]:
    """Serve all models of this module from one repository."""
    folder = tmp_path_factory.mktemp("openvino")
    models = {**SERVED, **{name: (file, config) for name, (file, config, _) in REJECTED.items()}}
    for name, (file, config) in models.items():
        write_model(folder / "repository", name, onnx_file=file, config=config)
    with (
        start_triton(folder / "repository", folder / "log") as server,
        grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as made,
    ):
        yield made


def infer(client: grpc.InferenceServerClient, model: str, x: Any, *outputs: str) -> list[Any]:
    given = grpc.InferInput("x", list(x.shape), {"uint8": "UINT8", "float32": "FP32"}[x.dtype.name])
    given.set_data_from_numpy(x)
    result = client.infer(model, [given], outputs=[grpc.InferRequestedOutput(name) for name in outputs] or None)
    return [result.as_numpy(name) for name in outputs or ("y",)]


def rows(*values: float) -> Any:
    return np.array([[value, -value] for value in values], np.float32)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("one", 1),
        ("options", 1),
        ("exact", 3),
        ("padded", 1),
        ("padded", 4),
        ("streams", 1),
        ("fixed", 3),
        ("device", 1),
    ],
)
def test_batch_of_the_right_size(client: grpc.InferenceServerClient, model: str, size: int) -> None:
    x = rows(*range(size))
    assert np.array_equal(infer(client, model, x)[0], x)


def test_batch_of_another_size_needs_padding(client: grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"batch of 3, got 2.*ENABLE_BATCH_PADDING") as caught:
        infer(client, "exact", rows(1, 2))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", "it is the client's input, not Triton's failure"
    assert np.array_equal(infer(client, "exact", rows(1, 2, 3))[0], rows(1, 2, 3)), "it goes on"


def test_dimension_that_only_the_graph_fixes(client: grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"input 'x': .*2") as caught:
        infer(client, "free-in-config", np.zeros((1, 3), np.float32))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert np.array_equal(infer(client, "free-in-config", rows(1))[0], rows(1)), "it goes on"


def test_dims_and_datatypes_of_the_config(client: grpc.InferenceServerClient) -> None:
    for shape in ((1, 2, 3), (2, 5, 3), (1, 2, 3)):
        x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        y, n = infer(client, "mixed", x, "y", "n")
        assert np.array_equal(y, x / 2)
        assert n.tolist() == [shape[1]]
        assert infer(client, "mixed", x, "n")[0].tolist() == [shape[1]]


def test_incomplete_config_is_completed(client: grpc.InferenceServerClient) -> None:
    # ONNX says of no dimension that it is the batch's.
    config = client.get_model_config("auto").config
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1, 2], [-1, 2]]
    assert np.array_equal(infer(client, "auto", rows(1, 2))[0], rows(1, 2))


def test_datatypes_are_converted(client: grpc.InferenceServerClient) -> None:
    x = np.array([[3, 250]], np.uint8)
    (y,) = infer(client, "converted", x)
    assert (y.dtype, y.tolist()) == (np.uint8, [[3, 250]])


def test_inputs_take_the_dims_of_the_config_with_the_option(client: grpc.InferenceServerClient) -> None:
    x = np.arange(5, dtype=np.float32)[None]
    assert np.array_equal(infer(client, "reshape", x)[0], x)


def test_concurrent_responses_do_not_mix(client: grpc.InferenceServerClient) -> None:
    def send(value: int) -> bool:
        return bool(np.array_equal(infer(client, "streams", rows(value))[0], rows(value)))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(send, range(200)))
    assert all(send(value) for value in range(20)), "each alone: with all threads"


def test_instances_share_who_is_busy(tmp_path: Path) -> None:
    file, config = SERVED["streams"]
    write_model(tmp_path / "repository", "streams", onnx_file=file, config=config)
    inode = (tmp_path / "repository" / "streams" / "1").stat().st_ino
    with (
        start_triton(tmp_path / "repository", tmp_path / "log") as server,
        grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client,
    ):
        assert np.array_equal(infer(client, "streams", rows(1))[0], rows(1))
        # Triton has a /dev/shm of its own where it may.
        (place,) = Path("/proc", str(server.process.pid), "root", "dev", "shm").glob(f"nereid-*-{inode}")
        assert not any(place.read_bytes()), "none is busy"
        assert place.stat().st_mode & 0o777 == 0o600


def test_bf16_rounds(client: grpc.InferenceServerClient) -> None:
    x = np.linspace(0, 1, 64, dtype=np.float32)[None]
    expected = x @ np.full((64, 64), 1 / 3, np.float32)
    got = infer(client, "bf16", x)[0]
    assert np.allclose(got, expected, rtol=0.02)
    if "bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no bf16: OpenVINO runs float32 then")
    assert not np.allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", REJECTED)
def test_invalid_model_is_rejected_and_the_others_serve(client: grpc.InferenceServerClient, name: str) -> None:
    index = client.get_model_repository_index().models
    reason = next(entry.reason for entry in index if entry.name == name)
    for words in REJECTED[name][2]:
        assert words in reason
    assert not client.is_model_ready(name)
