"""Models that the onnxruntime backend rejects in the real embedded Triton, while the rest serves."""

from collections.abc import Iterator

import pytest
from onnx import TensorProto
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.support.models import (
    BATCHED,
    CPU,
    FLOAT_IO,
    build_identity,
    build_optional,
    build_sequence_output,
    write_model,
)
from tests.support.triton import start_triton


def accelerator(name: str) -> str:
    """Return a config with an accelerator."""
    accelerators = f'execution_accelerators {{ cpu_execution_accelerator {{ name: "{name}" }} }}'
    return f"{BATCHED}{FLOAT_IO}optimization {{ {accelerators} }}"


def float_io(old: str, new: str, *, last: bool = False) -> str:
    """Return a config whose input (or, with `last`, output) differs from the model."""
    head, tail = FLOAT_IO.strip().split("\n")
    return BATCHED + (f"{head}\n{tail.replace(old, new)}" if last else f"{head.replace(old, new)}\n{tail}")


THREADS = BATCHED + FLOAT_IO + 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }'
EXTRA_INPUT = BATCHED + FLOAT_IO + 'input { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }'
OPTIONAL_INPUT = BATCHED + FLOAT_IO + 'input { name: "factor" data_type: TYPE_FP32 dims: [ 1 ] optional: true }'

# name: (ONNX file or None for y = x, config, what the reason must hold)
REJECTED: dict[str, tuple[bytes | None, str, list[str]]] = {
    "corrupt": (b"not a model", BATCHED + FLOAT_IO, ["Protobuf parsing failed"]),
    "corrupt-auto": (b"not a model", CPU, ["Protobuf parsing failed"]),
    "missing": (None, BATCHED + FLOAT_IO + 'default_model_filename: "absent.onnx"', ["unable to find", "absent.onnx"]),
    "opset": (build_identity(opsets={"": 22}), BATCHED + FLOAT_IO, ["opset 22 of ai.onnx", "21"]),
    "opset-auto": (build_identity(opsets={"": 22}), CPU, ["opset 22 of ai.onnx", "21"]),
    "ir": (build_identity(ir_version=11), BATCHED + FLOAT_IO, ["IR version 11", "10"]),
    "accelerator": (None, accelerator("warp"), ["unknown Execution Accelerator 'warp'"]),
    "openvino": (None, accelerator("openvino"), ["'openvino'", "built without OpenVINO"]),
    "threads": (None, THREADS, ["'intra_op_thread_count'", "'many'"]),
    "input-name": (None, float_io('"x"', '"image"'), ["'image'", "x"]),
    "input-type": (None, float_io("FP32", "FP64"), ["'x'", "TYPE_FP64", "TYPE_FP32"]),
    "input-dims": (None, float_io("[ 2 ]", "[ 3 ]"), ["'x'", "[-1, 2]", "[-1, 3]"]),
    "input-count": (None, EXTRA_INPUT, ["2 inputs", "takes 1"]),
    "output-name": (None, float_io('"y"', '"boxes"', last=True), ["'boxes'", "y"]),
    "output-type": (None, float_io("FP32", "FP16", last=True), ["'y'", "TYPE_FP16", "TYPE_FP32"]),
    "output-dims": (None, float_io("[ 2 ]", "[ -1 ]", last=True), ["'y'", "[-1, 2]", "[-1, -1]"]),
    "bf16": (build_identity(datatype=TensorProto.BFLOAT16), float_io("FP32", "BF16"), ["'x'", "TYPE_BF16"]),
    "batch": (build_identity([1, 2]), BATCHED + FLOAT_IO, ["'x'", "max_batch_size 8", "[1, 2]"]),
    "batch-auto": (build_identity([1, 2]), BATCHED, ["max_batch_size is 8"]),
    "optional-batch": (build_optional("n"), OPTIONAL_INPUT, ["'factor'", "max_batch_size 0"]),
    "sequence-output": (build_sequence_output(), CPU, ["'y'", "seq(tensor(float))"]),
    "sequences": (None, BATCHED + FLOAT_IO + "sequence_batching { }", ["sequence_batching", "embedded"]),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.InferenceServerClient]:
    """Serve a repository of bad models and one good one."""
    folder = tmp_path_factory.mktemp("rejections")
    repository = folder / "repository"
    write_model(repository, "good")
    for name, (onnx_file, config, _) in REJECTED.items():
        write_model(repository, name, onnx_file=onnx_file, config=config)
    with (
        start_triton(repository, folder / "log") as triton,
        grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc_port}") as made,
    ):
        yield made


@pytest.mark.parametrize("name", sorted(REJECTED))
def test_invalid_model_is_rejected_with_the_reason(client: grpc.InferenceServerClient, name: str) -> None:
    (entry,) = [model for model in client.get_model_repository_index().models if model.name == name]
    assert entry.state == "UNAVAILABLE"
    for part in REJECTED[name][2]:
        assert part in entry.reason
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata(name)
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_rest_of_the_repository_is_served(client: grpc.InferenceServerClient) -> None:
    assert client.is_server_ready()
    assert client.is_model_ready("good")
