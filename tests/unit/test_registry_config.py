"""config.pbtxt of the repository: what is accepted, what is rejected and why, and what Triton gets."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.config import (
    MAX_BYTES,
    Policy,
    builds_engines,
    check,
    check_formats,
    compose,
    contract,
    keeps_engines,
    merge_variant,
    name_engines,
    parse,
    read_policy,
    resolve,
    with_policy_cleared,
)
from registry.errors import VersionRejected
from registry.judgement import allowlist
from registry.judgement.rules import MapRule, Rule

SHIPPED = sorted((Path(__file__).parents[2] / "model_repository").glob("*/config.pbtxt"))
WHERE = "digits/2/config.pbtxt"

EVERYTHING = r"""
name: "any/name"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
version_policy { latest { num_versions: 2 } }
max_batch_size: 8
input {
  name: "serving/default:0" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [32, 32, 1] reshape { shape: [32, 32, 1] }
  is_shape_tensor: true allow_ragged_batch: true optional: true is_non_linear_format_io: true
}
output {
  name: "p" data_type: TYPE_FP32 dims: -1 reshape { shape: [] } label_filename: "labels-1.txt"
  is_shape_tensor: true is_non_linear_format_io: true
}
dynamic_batching {
  preferred_batch_size: [4, 8] preserve_ordering: true priority_levels: 2 default_priority_level: 1
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 9 allow_timeout_override: true max_queue_size: 7
  }
  priority_queue_policy { key: 1 value { max_queue_size: 3 } }
}
instance_group {
  name: "small_1.a-b" kind: KIND_GPU count: 2 gpus: [0, 1] profile: "0" passive: true host_policy: "gpu_0"
  rate_limiter { resources { name: "R1" global: true count: 4 } priority: 2 }
}
instance_group { kind: KIND_CPU }
optimization {
  graph { level: -1 } priority: PRIORITY_MIN input_pinned_memory { enable: false } output_pinned_memory {}
  gather_kernel_buffer_threshold: 4 eager_batching: true
  cuda {
    graphs: true busy_wait_events: true output_copy_stream: true
    graph_spec {
      batch_size: 1 input { key: "image" value { dim: [1, 2] } }
      graph_lower_bound { batch_size: 1 input { key: "image" value { dim: 1 } } }
    }
  }
  execution_accelerators {
    gpu_execution_accelerator {
      name: "tensorrt"
      parameters { key: "precision_mode" value: "FP16" }
      parameters { key: "max_workspace_size_bytes" value: "1073741824" }
      parameters { key: "trt_max_partition_iterations" value: "1000" }
      parameters { key: "trt_auxiliary_streams" value: "-1" }
      parameters { key: "trt_cuda_graph_enable" value: "True" }
      parameters { key: "trt_profile_max_shapes" value: "image:8x3x640x640,/b/c.1:1x2" }
      parameters { key: "trt_tactic_sources" value: "-CUDNN,+CUBLAS_LT" }
    }
    gpu_execution_accelerator {
      name: "cuda"
      parameters { key: "cudnn_conv_algo_search" value: "HEURISTIC" }
      parameters { key: "gpu_mem_limit" value: "4294967296" }
    }
    cpu_execution_accelerator { name: "openvino" }
  }
}
default_model_filename: "digits.v2.onnx"
cc_model_filenames { key: "8.6" value: "model.plan" }
metric_tags { key: "team" value: "any \"text\"" }
parameters { key: "metadata" value { string_value: "{'names': {0: '../é'}}" } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "inter_op_thread_count" value { string_value: "0" } }
parameters { key: "execution_mode" value { string_value: "1" } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
parameters { key: "enable_mem_pattern" value { string_value: "false" } }
parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0;gpu:1" } }
parameters { key: "session.use_device_allocator_for_initializers" value { string_value: "1" } }
parameters { key: "share_session_between_instances" value { string_value: "true" } }
parameters { key: "execution_context_allocation_strategy" value { string_value: "ON_PROFILE_CHANGE" } }
parameters { key: "NUM_STREAMS" value { string_value: "auto" } }
parameters { key: "HINT_BF16" value { string_value: "YES" } }
model_warmup {
  name: "w" batch_size: 8 count: 999
  inputs { key: "image" value { data_type: TYPE_UINT8 dims: [32, 32, 1] input_data_file: "seven.raw" } }
  inputs { key: "other" value { data_type: TYPE_UINT8 dims: [1] zero_data: false } }
}
model_warmup { inputs { key: "image" value { data_type: TYPE_UINT8 dims: [32, 32, 1] random_data: true } } }
model_transaction_policy { decoupled: false }
response_cache { enable: true }
"""


def read(text: str) -> Any:
    return parse(text.encode(), where=WHERE)


def judge(text: str) -> str:
    """Return why a config is rejected, without where."""
    with pytest.raises(VersionRejected) as rejected:
        check(read(text), where=WHERE)
    where, reason = str(rejected.value).split(": ", 1)
    assert where == WHERE
    return reason


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_config_is_accepted(path: Path) -> None:
    check(parse(path.read_bytes(), where=WHERE), where=WHERE)


def test_shipped_configs_are_there() -> None:
    assert len(SHIPPED) >= 3


def test_everything_on_the_list_is_accepted() -> None:
    check(read(EVERYTHING), where=WHERE)


def test_the_empty_config_is_accepted() -> None:
    check(read(""), where=WHERE)


def test_every_name_on_the_list_is_a_field_of_the_kind_it_says() -> None:
    compare(allowlist.MODEL, ModelConfig.DESCRIPTOR)


def compare(allowed: Any, descriptor: Descriptor) -> None:
    """Fail at a misspelt field, at a rule for one value where a message is, and at a table where one value is."""
    for name, inner in allowed.items():
        field = descriptor.fields_by_name[name]
        kind: Descriptor | None = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            values = [inner.value] if isinstance(inner, MapRule) else list(inner.values())
            kind = kind.fields_by_name["value"].message_type
        else:
            values = [inner]
        for value in values:
            assert isinstance(value, Rule) == (kind is None), name
            if kind is not None:
                compare(value, kind)


def parameter(key: str, value: str = "1") -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def accelerator(name: str, *options: tuple[str, str], where: str = "gpu") -> str:
    written = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in options)
    return (
        f'optimization {{ execution_accelerators {{ {where}_execution_accelerator {{ name: "{name}" {written} }} }} }}'
    )


GPU = "optimization.execution_accelerators.gpu_execution_accelerator[0]"
CPU = "optimization.execution_accelerators.cpu_execution_accelerator[0]"
NOT_LISTED = [
    ("runtime", 'runtime: "model.py"'),
    ("batch_input", "batch_input {}"),
    ("batch_output", "batch_output {}"),
    ("sequence_batching", "sequence_batching {}"),
    ("sequence_batching", 'sequence_batching { state { initial_state { data_file: "/etc/passwd" } } }'),
    ("ensemble_scheduling", "ensemble_scheduling {}"),
    ("ensemble_scheduling", 'ensemble_scheduling { step { model_name: "other" } }'),
    ("instance_group[1].secondary_devices", "instance_group {} instance_group { secondary_devices {} }"),
    ("model_operations", "model_operations {}"),
    ("model_operations", 'model_operations { op_library_filename: "x.so" }'),
    ("model_repository_agents", 'model_repository_agents { agents { name: "checksum" } }'),
    ("model_metrics", "model_metrics {}"),
    ("parameters['EXECUTION_ENV_PATH']", parameter("EXECUTION_ENV_PATH", "/srv/env.tar.gz")),
    ("parameters['CPU_EXTENSION_PATH']", parameter("CPU_EXTENSION_PATH", "/srv/x.so")),
    ("parameters['TRITON_BATCH_STRATEGY_PATH']", parameter("TRITON_BATCH_STRATEGY_PATH", "/srv/x.so")),
    ("parameters['Metadata']", parameter("Metadata")),
    ("parameters['']", parameter("")),
    (f"{GPU}.parameters['trt_timing_cache_path']", accelerator("tensorrt", ("trt_timing_cache_path", "a"))),
    (f"{GPU}.parameters['trt_extra_plugin_lib_paths']", accelerator("tensorrt", ("trt_extra_plugin_lib_paths", "a"))),
    (f"{GPU}.parameters['trt_ep_context_file_path']", accelerator("tensorrt", ("trt_ep_context_file_path", "a"))),
    (f"{GPU}.parameters['trt_dump_subgraphs']", accelerator("tensorrt", ("trt_dump_subgraphs", "1"))),
    (f"{GPU}.parameters['int8_calibration_table_name']", accelerator("tensorrt", ("int8_calibration_table_name", "a"))),
    (f"{GPU}.parameters['gpu_external_alloc']", accelerator("cuda", ("gpu_external_alloc", "140000000"))),
    (f"{CPU}.parameters", accelerator("openvino", ("cache_dir", "/srv"), where="cpu")),
]


@pytest.mark.parametrize(("path", "text"), NOT_LISTED)
def test_field_that_is_not_listed_is_rejected(path: str, text: str) -> None:
    reason = judge(text)
    assert reason.startswith(f"{path}: is not accepted, expected only ")


def warm(tensor: str = "", sample: str = "") -> str:
    return f'model_warmup {{ {sample} inputs {{ key: "x" value {{ {tensor} }} }} }}'


OPENVINO = 'backend: "openvino" max_batch_size: 1048576 '
WRONG = [
    ("platform: got 'ensemble'", 'platform: "ensemble"'),
    ("platform: got 'pytorch_libtorch'", 'platform: "pytorch_libtorch"'),
    ("backend: got 'python'", 'backend: "python"'),
    ("backend: got '../../x'", 'backend: "../../x"'),
    ("backend: got 'onnxruntime\\n'", r'backend: "onnxruntime\n"'),
    ("max_batch_size: got -1", "max_batch_size: -1"),
    ("max_batch_size: got 2147483647", "max_batch_size: 2147483647"),
    ("input[0].data_type: got 99", "input { data_type: 99 }"),
    ("input[1].format: got 9", "input {} input { format: 9 }"),
    ("output[0].label_filename: got '../labels.txt'", 'output { label_filename: "../labels.txt" }'),
    ("output[0].label_filename: got '/etc/passwd'", 'output { label_filename: "/etc/passwd" }'),
    ("output[0].label_filename: got '/etc/x.txt'", 'output { label_filename: "/etc/x.txt" }'),
    ("dynamic_batching.priority_levels: got 1000000000000", "dynamic_batching { priority_levels: 1000000000000 }"),
    ("instance_group[0].count: got -1", "instance_group { count: -1 }"),
    ("instance_group[0].count: got 65", "instance_group { count: 65 }"),
    ("instance_group: got passive in all of them", "instance_group { passive: true } instance_group { passive: true }"),
    ("instance_group: got 65 instances", "instance_group { count: 60 } instance_group { count: 5 }"),
    ("instance_group: got 66 instances", "instance_group { count: 33 gpus: [0, 1] }"),
    ("instance_group: got 100 instances", "instance_group {}" * 100),
    ("instance_group[0].kind: got 7", "instance_group { kind: 7 }"),
    ("instance_group[0].gpus[1]: got -1", "instance_group { gpus: [0, -1] }"),
    ("instance_group[0].name: got 'a$(touch /srv/x)'", 'instance_group { name: "a$(touch /srv/x)" }'),
    ("instance_group[0].name: got 'a;reboot'", 'instance_group { name: "a;reboot" }'),
    ("instance_group[0].name: got '-x'", 'instance_group { name: "-x" }'),
    ("instance_group[0].host_policy: got '`x`'", 'instance_group { host_policy: "`x`" }'),
    ("instance_group[0].profile[0]: got '99999999999'", 'instance_group { profile: "99999999999" }'),
    (
        "instance_group[0].rate_limiter.resources[0].name: got 'a b'",
        'instance_group { rate_limiter { resources { name: "a b" } } }',
    ),
    ("optimization.graph.level: got 99", "optimization { graph { level: 99 } }"),
    (f"{GPU}.name: got 'plugin'", accelerator("plugin")),
    (f"{CPU}.name: got 'tensorrt'", accelerator("tensorrt", where="cpu")),
    (f"{GPU}.parameters['precision_mode']: got '/x'", accelerator("tensorrt", ("precision_mode", "/x"))),
    (
        f"{GPU}.parameters['trt_engine_cache_path']: got '/srv'",
        accelerator("tensorrt", ("trt_engine_cache_path", "/srv")),
    ),
    (
        f"{GPU}.parameters['trt_engine_cache_prefix']: got '../a'",
        accelerator("tensorrt", ("trt_engine_cache_prefix", "../a")),
    ),
    (f"{GPU}.parameters['trt_tactic_sources']: got 'a.so'", accelerator("tensorrt", ("trt_tactic_sources", "a.so"))),
    ("default_model_filename: got 'model.py'", 'default_model_filename: "model.py"'),
    ("default_model_filename: got '../x.onnx'", 'default_model_filename: "../x.onnx"'),
    ("default_model_filename: got '/srv/x.onnx'", 'default_model_filename: "/srv/x.onnx"'),
    ("default_model_filename: got '.x.onnx'", 'default_model_filename: ".x.onnx"'),
    ("default_model_filename: got 'a/x.onnx'", 'default_model_filename: "a/x.onnx"'),
    ("default_model_filename: got 'x.onnx\\n'", r'default_model_filename: "x.onnx\n"'),
    ("default_model_filename: got 'libtriton_onnxruntime.so'", 'default_model_filename: "libtriton_onnxruntime.so"'),
    ("cc_model_filenames['8.6']: got '../x.plan'", 'cc_model_filenames { key: "8.6" value: "../x.plan" }'),
    ("the key of cc_model_filenames['x']: got 'x'", 'cc_model_filenames { key: "x" value: "x.plan" }'),
    ("the key of metric_tags['a b']: got 'a b'", 'metric_tags { key: "a b" value: "x" }'),
    ("the key of metric_tags['_a']: got '_a'", 'metric_tags { key: "_a" value: "x" }'),
    ("parameters['intra_op_thread_count'].string_value: got '-1'", parameter("intra_op_thread_count", "-1")),
    ("parameters['intra_op_thread_count'].string_value: got '1e9'", parameter("intra_op_thread_count", "1e9")),
    ("parameters['intra_op_thread_count'].string_value: got '٣'", parameter("intra_op_thread_count", "٣")),
    ("parameters['inter_op_thread_count'].string_value: got '5000'", parameter("inter_op_thread_count", "5000")),
    ("parameters['enable_mem_arena'].string_value: got 'maybe'", parameter("enable_mem_arena", "maybe")),
    ("model_transaction_policy.decoupled: got True", "model_transaction_policy { decoupled: true }"),
    ("model_warmup[0].inputs['x'].input_data_file: got '../a'", warm('input_data_file: "../a"')),
    ("model_warmup[0].inputs['x'].input_data_file: got '/dev/zero'", warm('input_data_file: "/dev/zero"')),
    ("model_warmup[0].inputs['x'].dims[1]: got -1", warm("dims: [1, -1]")),
    ("model_warmup[0].inputs['x'].dims[0]: got 0", warm("dims: 0")),
    ("model_warmup: got more than 100000000 elements in all runs", warm("dims: [10001, 10000]")),
    ("model_warmup[0].inputs['x'].dims: got 8193 entries", warm("dims: [" + "9," * 8192 + "1]")),
    ("model_warmup: got more than 100000000 elements in all runs", warm("dims: 1000", sample="batch_size: 1000000")),
    ("model_warmup: got more than 100000000 elements in all runs", warm("dims: 1000000", sample="count: 101")),
    ("model_warmup: got 1001 runs", warm(sample="count: 1001")),
    ("model_warmup: got 8193 entries", "model_warmup {}" * 8193),
    ("input: got 8193 entries", "input {}" * 8193),
    ("output[0].dims: got 17", "output { dims: [" + ",".join("1" * 17) + "] }"),
    (f"input[0].name: got '{'a' * 76}...", f'input {{ name: "{"a" * 513}" }}'),
    ("input[0].dims[0]: got 67108865", "input { dims: 67108865 }"),
    ("input[0].dims[1]: got -2", "input { dims: [1, -2] }"),
    ("input[0].dims: got [3, 8192, 8192]", "input { dims: [3, 8192, 8192] }"),
    ("output[0].reshape.shape: got [-1, 9999, 9999]", "output { reshape { shape: [-1, 9999, 9999] } }"),
    ("max_batch_size: got 1048576 of input 'a'", OPENVINO + 'input { name: "a" dims: [3, 320, 320] }'),
    ("dynamic_batching.preferred_batch_size[0]: got -1", "dynamic_batching { preferred_batch_size: -1 }"),
    (
        "dynamic_batching.max_queue_delay_microseconds: got 60000001",
        "dynamic_batching { max_queue_delay_microseconds: 60000001 }",
    ),
    ("parameters.metadata: got '('", parameter("metadata", "(")),
    ("parameters.metadata: got '[1]'", parameter("metadata", "[1]")),
    (f"parameters.metadata: got '{'[' * 76}...", parameter("metadata", "[" * 9999)),
    ("parameters.metadata: kpt_shape: got 1000000000", parameter("metadata", "{'kpt_shape': [1000000000, 3]}")),
    ("parameters.metadata: kpt_shape: got '17x3'", parameter("metadata", "{'kpt_shape': '17x3'}")),
    (
        "parameters.metadata: kpt_shape: got 512 keypoints of 200 classes",
        parameter("metadata", f"{{'kpt_shape': [512, 3], 'names': {['x'] * 200}}}"),
    ),
    ("parameters.metadata: imgsz: got 8193", parameter("metadata", "{'imgsz': 8193}")),
    ("parameters.metadata: imgsz: got -1", parameter("metadata", "{'imgsz': [640, -1]}")),
    ("parameters.metadata: imgsz: got '640'", parameter("metadata", "{'imgsz': '640'}")),
    ("parameters.metadata: imgsz: got [8192, 8192]", parameter("metadata", "{'imgsz': [8192, 8192], 'channels': 3}")),
    ("parameters.metadata: stride: got 0", parameter("metadata", "{'stride': 0}")),
    ("parameters.metadata: stride: got 1025", parameter("metadata", "{'stride': 1025}")),
    ("parameters.metadata: channels: got 65", parameter("metadata", "{'channels': 65}")),
    ("parameters.metadata: names: got 100001", parameter("metadata", str({"names": ["x"] * 100_001}))),
    (f"parameters.metadata: names: got '{'a' * 76}...", parameter("metadata", str({"names": {0: "a" * 1001}}))),
    ("parameters.metadata: names: got 0", parameter("metadata", "{'names': {9: 0, 0: 'x'}}")),
    ("parameters.metadata: names: got None", parameter("metadata", "{'names': [None, 'x']}")),
    ("parameters.metadata: stride: got 1.5", parameter("metadata", "{'stride': 1.5}")),
    (
        "instance_group: got 64 instances of 17 threads",
        "instance_group { count: 64 } " + parameter("intra_op_thread_count", "17"),
    ),
    ("parameters.metadata: names: got 7", parameter("metadata", "{'names': 7}")),
    ("parameters.metadata: features: got 3", parameter("metadata", "{'features': [3]}")),
    ("parameters.metadata: missing: got 3", parameter("metadata", "{'missing': [3]}")),
    ("parameters.metadata: missing: got 7", parameter("metadata", "{'missing': 7}")),
    ("parameters.metadata: missing: got 100001", parameter("metadata", str({"missing": ["x"] * 100_001}))),
    ("parameters.metadata: categories: got ['a']", parameter("metadata", "{'categories': ['a']}")),
    ("parameters.metadata: categories: got {'a': 7}", parameter("metadata", "{'categories': {'a': 7}}")),
    ("parameters.metadata: categories: got None", parameter("metadata", "{'categories': {'a': ['x', None]}}")),
    ("parameters.metadata: categories: got 1", parameter("metadata", "{'categories': {1: []}}")),
    (
        "parameters.metadata: categories: got too many",
        parameter("metadata", str({"categories": {"a": [0] * 100_001}})),
    ),
    (
        f"parameters.metadata: categories: got '{'a' * 76}...",
        parameter("metadata", str({"categories": {"a": ["a" * 1001]}})),
    ),
    ("version_policy.specific.versions: got []", "version_policy { specific {} }"),
    ("version_policy.specific.versions: got [0, 1]", "version_policy { specific { versions: [1, 0] } }"),
    ("version_policy.specific.versions: got [-3]", "version_policy { specific { versions: -3 } }"),
]


@pytest.mark.parametrize(("beginning", "text"), WRONG, ids=[beginning for beginning, _ in WRONG])
def test_value_that_is_not_listed_is_rejected(beginning: str, text: str) -> None:
    reason = judge(text)
    assert reason.startswith(f"{beginning}, expected ")
    assert len(reason) < 500


@pytest.mark.parametrize(
    "policy", ["default_queue_policy {}", "default_queue_policy { max_queue_size: 1 }", "priority_queue_policy {}"]
)
def test_queue_delay_beside_a_queue_policy_is_rejected(policy: str) -> None:
    reason = judge(f"dynamic_batching {{ max_queue_delay_microseconds: 100 {policy} }}")
    assert reason.startswith("dynamic_batching.max_queue_delay_microseconds: got 100, expected 0 ")
    assert "8870" in reason


def test_queue_delay_alone_is_accepted() -> None:
    check(read("dynamic_batching { max_queue_delay_microseconds: 100 }"), where=WHERE)


def test_long_value_is_shortened() -> None:
    assert len(judge(f'backend: "{"x" * 100_000}"')) < 500


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            b'name: "a"\n  what: 1\n',
            'line 2, column 3: Message type "inference.ModelConfig" has no field named "what".',
        ),
        (b"max_batch_size: 1\nmax_batch_size: 2", "line 2, column 17: "),
        (b"input {", "line 1, column "),
        (b"max_batch_size: 99999999999", "line 1, column 17: "),
        (b"input { data_type: TYPE_WHAT }", "line 1, column "),
        (b'name: "\\xff"', "line 1, column "),
        (b"[a.b.c] { x: 1 }", "line 1, column "),
        (b"\x89PNG\r\n\x1a\n", "'utf-8' codec can't decode byte 0x89 in position 0: "),
        (b"input { data_type: 99999999999999999999 }", "Value out of range: 99999999999999999999"),
        (b"\x00" * 100, "line 1, column 1: "),
        (b"#" * (MAX_BYTES + 1), f"got {MAX_BYTES + 1} bytes, expected at most {MAX_BYTES}"),
        (b"x" * MAX_BYTES, "line 1, column 1: "),
    ],
)
def test_text_that_is_no_config_is_rejected(text: bytes, reason: str) -> None:
    with pytest.raises(VersionRejected) as rejected:
        parse(text, where=WHERE)
    assert str(rejected.value).startswith(f"{WHERE}: {reason}")
    assert len(str(rejected.value)) < 500


def test_metadata_of_none_and_of_whole_numbers_is_accepted() -> None:
    given = "'missing': ['a'], 'categories': {'a': ['x', 1, 2.5]}"
    text = parameter("metadata", f"{{'names': None, 'imgsz': None, 'stride': 32.0, 'features': None, {given}}}")
    check(parse(text.encode(), where="config.pbtxt"), where="config.pbtxt")


def test_the_longest_text_is_read() -> None:
    assert parse(b"max_batch_size: 8".ljust(MAX_BYTES, b"\n"), where=WHERE).max_batch_size == 8


@pytest.mark.parametrize(
    ("text", "written", "selected"),
    [
        (None, "latest 1", [11]),
        ("", "latest 1", [11]),
        ("version_policy { latest {} }", "latest 1", [11]),
        ("version_policy { latest { num_versions: 0 } }", "latest 1", [11]),
        ("version_policy { latest { num_versions: 2 } }", "latest 2", [9, 11]),
        ("version_policy { latest { num_versions: 99 } }", "latest 99", [2, 9, 11]),
        ("version_policy { specific { versions: [9, 3, 2, 9] } }", "specific 2, 3, 9", [2, 9]),
        ("version_policy { specific { versions: 7 } }", "specific 7", []),
        ("version_policy { all {} }", "all", [2, 9, 11]),
        ("version_policy {}", "all", [2, 9, 11]),  # so does Triton
    ],
)
def test_policy(text: str | None, written: str, selected: list[int]) -> None:
    policy = read_policy(None if text is None else read(text))
    assert str(policy) == written
    assert policy.select({11, 2, 9}) == selected
    assert policy.select([]) == []


def test_policies_are_equal_by_value() -> None:
    assert read_policy(read("version_policy { specific { versions: [3, 1] } }")) == Policy(None, frozenset({1, 3}))


@pytest.mark.parametrize("text", ["specific {}", "specific { versions: 0 }", "specific { versions: [1, -1] }"])
def test_policy_without_versions_is_rejected(text: str) -> None:
    with pytest.raises(VersionRejected, match=r"version_policy\.specific\.versions"):
        read_policy(read(f"version_policy {{ {text} }}"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "model.onnx"),
        ('backend: "onnxruntime"', "model.onnx"),
        ('backend: "openvino"', "model.xml"),
        ('default_model_filename: "My_net.v2.xml"', "My_net.v2.xml"),
        ('platform: "onnxruntime_onnx"', "model.onnx"),
        ('platform: "tensorrt_plan"', "model.plan"),
        ('backend: "tensorrt"', "model.plan"),
        ('backend: "tensorrt" default_model_filename: "a.plan"', "a.plan"),
        ('default_model_filename: "a.onnx"', "a.onnx"),
    ],
)
def test_model_filename(text: str, name: str) -> None:
    assert resolve(read(text)).default_model_filename == name


@pytest.mark.parametrize(
    ("text", "files", "plans", "backend", "filename"),
    [
        ("", {"model.onnx"}, False, "onnxruntime", "model.onnx"),
        ("", {"model.xml", "model.bin"}, False, "openvino", "model.xml"),
        ("", {"model.plan"}, False, "tensorrt", "model.plan"),
        ("", {"model.plan", "model.onnx"}, True, "tensorrt", "model.plan"),
        ("", {"model.plan", "model.onnx"}, False, "onnxruntime", "model.onnx"),
        ("", {"model.xml", "model.onnx"}, False, "onnxruntime", "model.onnx"),
        ('backend: "openvino"', {"model.xml", "model.onnx"}, False, "openvino", "model.xml"),
        ('backend: "openvino"', {"model.onnx"}, False, "openvino", "model.onnx"),
        ('default_model_filename: "a.xml"', {"model.onnx"}, False, "openvino", "a.xml"),
        ("", {"model.py", "net.onnx"}, False, "onnxruntime", "model.onnx"),
    ],
)
def test_backend_is_what_triton_finds_in_the_folder(
    text: str, files: set[str], plans: bool, backend: str, filename: str
) -> None:
    resolved = resolve(read(text), files, plans=plans)
    assert (resolved.backend, resolved.default_model_filename) == (backend, filename)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_composed_config_says_the_same_of_one_version(path: Path) -> None:
    own = parse(path.read_bytes(), where=WHERE)
    before = own.SerializeToString(deterministic=True)
    composed = parse(compose(own, versions=[2, 1]), where=WHERE)
    check(composed, where=WHERE)
    assert own.SerializeToString(deterministic=True) == before
    assert list(composed.version_policy.specific.versions) == [1, 2]
    assert (composed.name, composed.default_model_filename) == ("", "model.onnx")
    own.default_model_filename = "model.onnx"
    assert with_policy_cleared(composed) == with_policy_cleared(own)


def test_composed_config_keeps_everything_listed() -> None:
    own = read(EVERYTHING)
    assert with_policy_cleared(parse(compose(own, versions=[3]), where=WHERE)) == with_policy_cleared(own)


def test_composed_config_depends_on_no_order() -> None:
    one = f"{parameter('execution_mode')} {parameter('metadata')} version_policy {{ all {{}} }}"
    other = f'{parameter("metadata")} {parameter("execution_mode")} name: "x"'
    assert compose(read(one), versions=[1, 2]) == compose(read(other), versions=[2, 1])


@pytest.mark.parametrize(
    ("text", "backend", "filename"),
    [
        (None, "onnxruntime", "model.onnx"),
        ("", "onnxruntime", "model.onnx"),
        ('default_model_filename: "a.plan"', "tensorrt", "a.plan"),
        ('backend: "openvino"', "openvino", "model.xml"),
        ('backend: "tensorrt"', "tensorrt", "model.plan"),
        ('platform: "tensorrt_plan"', "", "model.plan"),  # Triton takes the backend from the platform
    ],
)
def test_composed_config_leaves_triton_no_choice_of_backend(text: str | None, backend: str, filename: str) -> None:
    composed = parse(compose(None if text is None else read(text), versions=[1]), where=WHERE)
    assert (composed.backend, composed.default_model_filename) == (backend, filename)


def test_composed_config_pins_even_no_version() -> None:
    assert parse(compose(None, versions=[]), where=WHERE).version_policy.HasField("specific")


IMAGE = 'input { name: "image" data_type: TYPE_UINT8 dims: [32, 32, 1] }'
PROBABILITIES = 'output { name: "p" data_type: TYPE_FP32 dims: 10 }'
OWN = f'name: "digits" backend: "onnxruntime" max_batch_size: 8 {IMAGE} {PROBABILITIES} {parameter("metadata", "own")}'


def test_variant_decides_how_to_run_and_the_version_what_outputs_mean() -> None:
    variant = read(
        f'name: "x" backend: "onnxruntime" instance_group {{ count: 3 }} version_policy {{ all {{}} }} '
        f"{parameter('metadata', 'variant')} {parameter('intra_op_thread_count', '4')}"
    )
    composed = parse(compose(merge_variant(variant, read(OWN)), versions=[2]), where=WHERE)
    assert contract(composed) == contract(read(OWN))
    assert composed.instance_group[0].count == 3
    assert composed.parameters["intra_op_thread_count"].string_value == "4"
    assert (composed.name, list(composed.version_policy.specific.versions)) == ("", [2])
    assert variant.parameters["metadata"].string_value == "variant"


def test_variant_keeps_tensors_and_batch_size_of_its_own() -> None:
    variant = read(f"max_batch_size: 1 {IMAGE.replace('32', '64')} {PROBABILITIES.replace('10', '-1')}")
    composed = parse(compose(merge_variant(variant, read(OWN)), versions=[2]), where=WHERE)
    assert (composed.max_batch_size, list(composed.input[0].dims), list(composed.output[0].dims)) == (
        1,
        [64, 64, 1],
        [-1],
    )
    assert (len(composed.input), len(composed.output)) == (1, 1)


@pytest.mark.parametrize("own", [None, ModelConfig()])
def test_variant_of_a_version_without_metadata(own: Any) -> None:
    composed = parse(compose(merge_variant(read(parameter("metadata", "variant")), own), versions=[2]), where=WHERE)
    assert composed.parameters["metadata"].string_value == "variant"
    assert "metadata" not in parse(compose(merge_variant(ModelConfig(), own), versions=[2]), where=WHERE).parameters


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('name: "digits"', 'name: "other"', True),
        ("max_batch_size: 8", "max_batch_size: 8 instance_group { count: 2 } version_policy { all {} }", True),
        ("max_batch_size: 8", f"max_batch_size: 8 {parameter('execution_mode')}", True),
        ("max_batch_size: 8", "max_batch_size: 4", False),
        ('"own"', '"other"', False),
        ("32, 32", "64, 64", False),
        ("dims: 10", 'dims: 10 label_filename: "labels.txt"', False),
        ('"p"', '"q"', False),
    ],
)
def test_contract_depends_on_tensors_and_labels_alone(old: str, new: str, same: bool) -> None:
    assert old in OWN
    assert (contract(read(OWN.replace(old, new))) == contract(read(OWN))) is same


def test_cleared_config_depends_on_all_but_name_and_policy() -> None:
    own = read(OWN)
    assert with_policy_cleared(read(f"{OWN} version_policy {{ all {{}} }}".replace('"digits"', '"x"'))) == (
        with_policy_cleared(own)
    )
    assert with_policy_cleared(read(f"{OWN} instance_group {{ count: 2 }}")) != with_policy_cleared(own)
    assert own.name == "digits"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('backend: "onnxruntime" default_model_filename: "model.plan"', "got 'model.plan', expected a file that ends"),
        ('backend: "openvino" default_model_filename: "model.plan"', "in .xml or .onnx: openvino reads it"),
        ('platform: "onnxruntime_onnx" default_model_filename: "model.plan"', "in .onnx: onnxruntime reads it"),
        ('backend: "tensorrt" default_model_filename: "model.onnx"', "in .plan: tensorrt reads it"),
        ('backend: "onnxruntime" cc_model_filenames { key: "9.0" value: "a.plan" }', r"cc_model_filenames\['9.0'\]"),
        ('default_model_filename: "model.plan" cc_model_filenames { key: "9.0" value: "a.onnx" }', "in .plan"),
    ],
)
def test_file_in_the_format_of_another_backend_is_rejected(text: str, says: str) -> None:
    config = parse(text.encode(), where="config.pbtxt")
    check(config, where="config.pbtxt")
    with pytest.raises(VersionRejected, match=says):
        check_formats(resolve(config), plans=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'backend: "openvino"',
        'platform: "tensorrt_plan"',
        'default_model_filename: "model.plan" cc_model_filenames { key: "9.0" value: "model.cc90.plan" }',
        'backend: "tensorrt" default_model_filename: "a.plan"',
        'platform: "onnxruntime_onnx" default_model_filename: "digits.v2.onnx"',
    ],
)
def test_file_in_the_format_of_its_backend_is_accepted(text: str) -> None:
    check_formats(resolve(parse(text.encode(), where="config.pbtxt")), plans=True)


@pytest.mark.parametrize(
    "text",
    ['backend: "tensorrt"', 'platform: "tensorrt_plan"', 'default_model_filename: "model.plan"'],
)
def test_plan_is_rejected_where_no_setting_allows_plans(text: str) -> None:
    with pytest.raises(
        VersionRejected, match="a plan is code; expected onnxruntime or openvino, or PREDICTOR_PLANS=true"
    ):
        check_formats(resolve(parse(text.encode(), where="config.pbtxt")), plans=False)


def test_engines_are_kept_under_a_name_that_no_config_chooses() -> None:
    kept = 'parameters { key: "trt_engine_cache_enable" value: "1" }'
    named = 'parameters { key: "trt_engine_cache_prefix" value: "other-model" }'
    text = "optimization { execution_accelerators { gpu_execution_accelerator { name: 'tensorrt' %s } } }"
    config = parse((text % (kept + named)).encode(), where="config.pbtxt")
    assert keeps_engines(config)
    assert builds_engines(config)
    name_engines(config, "digits-0123")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_engine_cache_prefix"] == "digits-0123"
    assert not keeps_engines(parse((text % "").encode(), where="config.pbtxt"))
    assert not builds_engines(parse((text.replace("tensorrt", "cuda") % "").encode(), where="config.pbtxt"))
