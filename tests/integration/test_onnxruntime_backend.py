"""The onnxruntime backend in the real embedded Triton: what it serves."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.models import (
    BATCHED,
    CPU,
    FLOAT_IO,
    build,
    build_identity,
    build_optional,
    build_scalar,
    tensor,
    write_model,
)
from tests.support.stack import PATIENCE_S
from tests.support.triton import Triton, start_triton

# Long enough to put the requests of a test into one batch; the batch leaves at once when it is full.
DYNAMIC = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1000000 }\n"

DTYPES = {
    "BOOL": (np.array([[True, False]]), TensorProto.BOOL),
    "UINT8": (np.array([[0, 255]], np.uint8), TensorProto.UINT8),
    "UINT16": (np.array([[0, 65535]], np.uint16), TensorProto.UINT16),
    "UINT32": (np.array([[0, 2**32 - 1]], np.uint32), TensorProto.UINT32),
    "UINT64": (np.array([[0, 2**64 - 1]], np.uint64), TensorProto.UINT64),
    "INT8": (np.array([[-128, 127]], np.int8), TensorProto.INT8),
    "INT16": (np.array([[-1, 1]], np.int16), TensorProto.INT16),
    "INT32": (np.array([[-1, 1]], np.int32), TensorProto.INT32),
    "INT64": (np.array([[-(2**62), 1]], np.int64), TensorProto.INT64),
    "FP16": (np.array([[0.5, -2]], np.float16), TensorProto.FLOAT16),
    "FP32": (np.array([[0.1, -2]], np.float32), TensorProto.FLOAT),
    "FP64": (np.array([[0.1, -2]], np.float64), TensorProto.DOUBLE),
    "STRING": (np.array([[b"", "naïve".encode()]], np.object_), TensorProto.STRING),
}


def build_echo() -> bytes:
    """Return each input of each datatype as an output."""
    return build(
        [helper.make_node("Identity", [name], [f"{name}-out"]) for name in DTYPES],
        [tensor(name, datatype=onnx_type) for name, (_, onnx_type) in DTYPES.items()],
        [tensor(f"{name}-out", datatype=onnx_type) for name, (_, onnx_type) in DTYPES.items()],
    )


def build_batch_sum() -> bytes:
    """Return `y = x + sum of x over the batch`, which tells what ran together."""
    return build(
        [helper.make_node("ReduceSum", ["x", "axes"], ["sum"]), helper.make_node("Add", ["x", "sum"], ["y"])],
        [tensor("x")],
        [tensor("y")],
        constants={"axes": np.array([0], np.int64)},
    )


def build_slow_batch_sum() -> bytes:
    """Return what `build_batch_sum` does after a product of large matrices: some 30 ms on one core."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Expand", ["total", "square"], ["filled"]),
        helper.make_node("MatMul", ["filled", "filled"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["both"]),
        helper.make_node("Add", ["both", "nothing"], ["y"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([0], np.int64),
        "square": np.array([1200, 1200], np.int64),
        "zero": np.array(0, np.float32),
    }
    return build(nodes, [tensor("x")], [tensor("y")], constants=constants)


def build_picker() -> bytes:
    """Return `y = table[x]`, which fails for an index beyond the table."""
    return build(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [tensor("x", ["n", 1], TensorProto.INT64)],
        [tensor("y", ["n", 1])],
        constants={"table": np.array([10, 20], np.float32)},
    )


def build_two_outputs() -> bytes:
    """Return `y = x` and `positive`, the indices where x > 0: any number of them, also none."""
    return build(
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("Relu", ["x"], ["relu"]),
            helper.make_node("NonZero", ["relu"], ["positive"]),
        ],
        [tensor("x", ["n"])],
        [tensor("y", ["n"]), tensor("positive", [1, "k"], TensorProto.INT64)],
    )


def write_served(repository: Path) -> None:
    """Write the models that must load."""
    every_option = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in {
            "intra_op_thread_count": "2",
            "inter_op_thread_count": "2",
            "execution_mode": "1",
            "enable_mem_arena": "1",
            "enable_mem_pattern": "0",
            "memory.enable_memory_arena_shrinkage": "cpu:0",
            "session.use_device_allocator_for_initializers": "1",
        }.items()
    )
    write_model(repository, "options", config=BATCHED + FLOAT_IO + every_option + "optimization { graph { level: 2 } }")
    write_model(repository, "sum", onnx_file=build_batch_sum(), config=BATCHED + FLOAT_IO + DYNAMIC)
    threads = 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }\n'
    write_model(repository, "slow", onnx_file=build_slow_batch_sum(), config=BATCHED + FLOAT_IO + DYNAMIC + threads)
    picker_io = FLOAT_IO.replace("[ 2 ]", "[ 1 ]").replace("TYPE_FP32", "TYPE_INT64", 1)
    write_model(repository, "picker", onnx_file=build_picker(), config=BATCHED + picker_io + DYNAMIC)
    write_model(repository, "echo", onnx_file=build_echo(), config=BATCHED + DYNAMIC)
    write_model(repository, "auto", config=None)
    write_model(repository, "auto-empty", config="")
    write_model(repository, "auto-platform", config='platform: "onnxruntime_onnx"')
    write_model(repository, "auto-batch-1", config=CPU + "max_batch_size: 1")
    write_model(repository, "auto-fixed", onnx_file=build_identity([3, None]))
    write_model(repository, "auto-rows", onnx_file=build_identity(["n"]))
    write_model(repository, "auto-outputs", config=BATCHED + FLOAT_IO.splitlines()[1])
    write_model(repository, "file", config=BATCHED + 'default_model_filename: "net.onnx"', filename="net.onnx")
    write_model(repository, "folder", config=BATCHED + 'default_model_filename: "net"', filename="net/model.onnx")
    two = "input { name: 'x' data_type: TYPE_FP32 dims: [ -1 ] }\n"
    two += "output { name: 'y' data_type: TYPE_FP32 dims: [ -1 ] }\n"
    two += "output { name: 'positive' data_type: TYPE_INT64 dims: [ 1, -1 ] }"
    write_model(repository, "two-outputs", onnx_file=build_two_outputs(), config=CPU + two)
    write_model(repository, "one-output", onnx_file=build_two_outputs(), config=CPU + two.rsplit("\n", 1)[0])
    narrow = FLOAT_IO.replace("[ 2 ]", "[ -1 ]").replace("[ -1 ]", "[ 3 ]", 1)
    write_model(repository, "narrow", onnx_file=build_identity(["n", "m"]), config=BATCHED + narrow)
    reshape = FLOAT_IO.replace("[ 2 ]", "[ 1 ] reshape { shape: [ ] }")
    write_model(repository, "reshape", onnx_file=build_identity(["n"]), config=BATCHED + reshape)
    scalar = FLOAT_IO.replace("[ 2 ]", "[ 1 ]") + "output { name: 'size' data_type: TYPE_INT64 dims: [ 1 ] }"
    write_model(repository, "scalar", onnx_file=build_scalar([]), config=CPU + scalar)
    optional = FLOAT_IO + "input { name: 'factor' data_type: TYPE_FP32 dims: [ 1 ] optional: true }"
    write_model(repository, "optional", onnx_file=build_optional(), config=CPU + optional)
    write_model(repository, "newest", onnx_file=build_identity(ir_version=10, opsets={"": 21, "ai.onnx.ml": 5}))
    write_model(repository, "instances", config=CPU.replace("count: 1", "count: 3"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Serve all models of this module from one repository."""
    folder = tmp_path_factory.mktemp("backend")
    repository = folder / "repository"
    write_served(repository)
    with start_triton(repository, folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def client(triton: Triton) -> Iterator[grpc.InferenceServerClient]:
    """Return a client of that Triton."""
    with grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc_port}") as made:
        yield made


def infer(
    client: grpc.InferenceServerClient,
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    outputs: list[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Run a model and return what came back by name."""
    tensors = []
    for name, array in inputs.items():
        tensors.append(grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array)
    requested = None if outputs is None else [grpc.InferRequestedOutput(name) for name in outputs]
    result = client.infer(model, tensors, outputs=requested, client_timeout=30)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def pair(*values: float) -> NDArray[np.float32]:
    """Return one row."""
    return np.array([values], np.float32)


def test_datatypes_pass_unchanged_through_a_batch(client: grpc.InferenceServerClient) -> None:
    arrays = {name: array for name, (array, _) in DTYPES.items()}
    swapped = {name: array[:, ::-1].copy() for name, array in arrays.items()}
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda inputs: infer(client, "echo", inputs), [arrays, swapped, arrays, swapped]))
    for response, inputs in zip(responses, [arrays, swapped, arrays, swapped], strict=True):
        for name, array in inputs.items():
            returned = response[f"{name}-out"]
            assert returned.dtype == array.dtype
            np.testing.assert_array_equal(returned, array)


def test_requests_that_triton_put_together_run_as_one(client: grpc.InferenceServerClient) -> None:
    before = client.get_inference_statistics("sum").model_stats[0]
    rows = [pair(1, 10), pair(2, 20), np.array([[3, 30], [4, 40]], np.float32)]
    with ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda row: infer(client, "sum", {"x": row})["y"], rows))
    for response, row in zip(responses, rows, strict=True):
        np.testing.assert_array_equal(response, row + pair(10, 100))
    after = client.get_inference_statistics("sum").model_stats[0]
    assert after.execution_count - before.execution_count == 1
    assert after.inference_count - before.inference_count == 4


def test_requests_to_a_slow_model_run_beside_each_other(client: grpc.InferenceServerClient) -> None:
    rows = [pair(number, 10 * number) for number in range(1, 5)]

    def send_together() -> list[NDArray[Any]]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda row: infer(client, "slow", {"x": row})["y"], rows))

    for responses in (send_together(), send_together()):  # a batch each: how long it takes is not known yet
        np.testing.assert_array_equal(responses, [row + pair(10, 100) for row in rows])
    deadline = time.monotonic() + PATIENCE_S
    while not np.array_equal(responses := send_together(), [2 * row for row in rows]):
        # The session of one thread is created meanwhile.
        np.testing.assert_array_equal(responses, [row + pair(10, 100) for row in rows])
        assert time.monotonic() < deadline
    np.testing.assert_array_equal(infer(client, "slow", {"x": rows[0]})["y"], 2 * rows[0])


def test_failed_run_fails_each_request_of_its_batch_and_no_other(client: grpc.InferenceServerClient) -> None:
    def pick(index: int) -> str:
        try:
            return str(infer(client, "picker", {"x": np.array([[index]], np.int64)})["y"].item())
        except InferenceServerException as exc:
            return f"{exc.status()} {exc.message()}"

    with ThreadPoolExecutor(4) as pool:
        failed = list(pool.map(pick, [0, 1, 7, 1]))
        assert all(
            "StatusCode.INTERNAL" in response and "indices element out of data bounds" in response
            for response in failed
        )
        assert list(pool.map(pick, [0, 1, 1, 0])) == ["10.0", "20.0", "20.0", "10.0"]


def test_options_of_a_model_are_taken(client: grpc.InferenceServerClient) -> None:
    np.testing.assert_array_equal(infer(client, "options", {"x": pair(1, 2)})["y"], pair(1, 2))


def test_instances_are_processes_of_their_own(triton: Triton) -> None:
    stubs = Path(f"/proc/{triton.process.pid}/task/{triton.process.pid}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in stubs]
    assert sum("/instances/1/" in command[1] for command in commands) == 3


@pytest.mark.parametrize(
    ("model", "max_batch_size", "dynamic", "dims"),
    [
        ("auto", 4, True, [2]),
        ("auto-empty", 4, True, [2]),
        ("auto-platform", 4, True, [2]),
        ("auto-batch-1", 1, False, [2]),
        ("auto-outputs", 8, True, [2]),
        ("auto-fixed", 0, False, [3, -1]),
        ("auto-rows", 4, True, [1]),
        ("two-outputs", 0, False, [-1]),
    ],
)
def test_config_is_completed_only_where_it_is_silent(
    client: grpc.InferenceServerClient, model: str, max_batch_size: int, dynamic: bool, dims: list[int]
) -> None:
    config = client.get_model_config(model).config
    assert config.max_batch_size == max_batch_size
    assert config.HasField("dynamic_batching") == dynamic
    assert (config.input[0].name, list(config.input[0].dims)) == ("x", dims)
    assert (config.output[0].name, list(config.output[0].dims)) == ("y", dims)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        ("auto", np.zeros((3, 2), np.float32)),
        ("auto-fixed", np.zeros((3, 5), np.float32)),
        ("auto-rows", np.array([[1], [2]], np.float32)),
        ("auto-outputs", pair(1, 2)),
        ("file", pair(1, 2)),
        ("folder", pair(1, 2)),
        ("newest", pair(1, 2)),
        ("narrow", pair(1, 2, 3)),
        ("reshape", np.array([[1], [2]], np.float32)),
        ("instances", pair(1, 2)),
    ],
)
def test_identity_model_returns_its_input(
    client: grpc.InferenceServerClient, model: str, x: NDArray[np.float32]
) -> None:
    np.testing.assert_array_equal(infer(client, model, {"x": x})["y"], x)


def test_scalar_is_one_element_on_the_wire(client: grpc.InferenceServerClient) -> None:
    response = infer(client, "scalar", {"x": np.array([5], np.float32)})
    np.testing.assert_array_equal(response["y"], np.array([-5], np.float32))
    np.testing.assert_array_equal(response["size"], [0])


@pytest.mark.parametrize(("extra", "expected"), [({}, [3, 6]), ({"factor": np.array([10], np.float32)}, [10, 20])])
def test_initializer_may_be_given_as_an_optional_input(
    client: grpc.InferenceServerClient, extra: dict[str, NDArray[np.float32]], expected: list[int]
) -> None:
    response = infer(client, "optional", {"x": np.array([1, 2], np.float32), **extra})
    np.testing.assert_array_equal(response["y"], expected)


def test_missing_input_beside_an_optional_one_is_named(client: grpc.InferenceServerClient) -> None:
    # Triton counts inputs and lets this one through; ONNX Runtime does not, under either backend.
    with pytest.raises(InferenceServerException, match=r"\['x'\]\) are missing"):
        infer(client, "optional", {"factor": np.array([1], np.float32)})


@pytest.mark.parametrize("outputs", [["y"], ["positive"], ["positive", "y"]])
def test_only_the_requested_outputs_are_returned(client: grpc.InferenceServerClient, outputs: list[str]) -> None:
    x = np.array([0, 4, 5], np.float32)
    response = infer(client, "two-outputs", {"x": x}, outputs=outputs)
    assert sorted(response) == sorted(outputs)
    if "positive" in outputs:
        np.testing.assert_array_equal(response["positive"], [[1, 2]])


def test_output_may_be_empty(client: grpc.InferenceServerClient) -> None:
    assert infer(client, "two-outputs", {"x": np.zeros(3, np.float32)})["positive"].shape == (1, 0)


def test_output_left_out_of_the_config_is_not_served(client: grpc.InferenceServerClient) -> None:
    x = np.array([1], np.float32)
    assert list(infer(client, "one-output", {"x": x})) == ["y"]
    with pytest.raises(InferenceServerException, match="unexpected inference output 'positive'"):
        infer(client, "one-output", {"x": x}, outputs=["positive"])


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("options", {}, "expected 1 inputs but got 0"),
        ("options", {"x": pair(1, 2), "z": pair(1, 2)}, "expected 1 inputs but got 2"),
        ("options", {"z": pair(1, 2)}, "unexpected inference input 'z'"),
        ("options", {"x": pair(1, 2, 3)}, "unexpected shape for input 'x'"),
        ("narrow", {"x": pair(1, 2)}, "unexpected shape for input 'x'"),
        ("options", {"x": pair(1, 2).astype(np.float64)}, "inference input 'x' data-type is 'FP64'"),
        ("options", {"x": np.zeros((9, 2), np.float32)}, "batch-size must be <= 8"),
    ],
)
def test_request_that_does_not_fit_is_the_clients_fault(
    client: grpc.InferenceServerClient, model: str, inputs: dict[str, NDArray[np.generic]], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        infer(client, model, inputs)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_input_larger_than_the_shared_memory_makes_it_grow(client: grpc.InferenceServerClient) -> None:
    x = np.arange(3 * 2_000_000, dtype=np.float32).reshape(3, -1)
    np.testing.assert_array_equal(infer(client, "auto-fixed", {"x": x})["y"], x)
