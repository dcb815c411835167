"""Checks sums and products of a config that no single value shows."""

from tritonclient.grpc.model_config_pb2 import ModelConfig

from registry.errors import VersionRejected
from registry.judgement.limits import (
    MAX_BATCH_ELEMENTS,
    MAX_ELEMENTS,
    MAX_INSTANCES,
    MAX_TENSOR_DIMS,
    MAX_THREADS,
    MAX_WARMUP_ELEMENTS,
    MAX_WARMUP_RUNS,
)
from registry.judgement.rules import multiply, shorten

_THREADS = ("intra_op_thread_count", "inter_op_thread_count", "INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS")


def check_sums(config: ModelConfig) -> None:
    """Check what no single value shows."""
    batching = config.dynamic_batching
    delay = batching.max_queue_delay_microseconds
    if delay and (batching.HasField("default_queue_policy") or batching.priority_queue_policy):
        raise VersionRejected(
            f"dynamic_batching.max_queue_delay_microseconds: got {delay}, expected 0 beside a queue policy: "
            "Triton's count of waiting requests leaks otherwise (issue 8870 of triton-inference-server/server)"
        )
    instances = sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group)
    if instances > MAX_INSTANCES:
        raise VersionRejected(f"instance_group: got {instances} instances, expected at most {MAX_INSTANCES}")
    if config.instance_group and all(group.passive for group in config.instance_group):
        raise VersionRejected(
            "instance_group: got passive in all of them, expected one that is not: Triton ends with the first request"
        )
    threads = 1
    for name in _THREADS:
        if name in config.parameters:
            threads = max(threads, int(config.parameters[name].string_value or 1))
    if max(instances, 1) * threads > MAX_THREADS:
        raise VersionRejected(
            f"instance_group: got {instances} instances of {threads} threads, expected {MAX_THREADS} in all"
        )
    _check_warmup(config)
    _check_tensors(config)


def _check_warmup(config: ModelConfig) -> None:
    runs = sum(max(sample.count, 1) for sample in config.model_warmup)
    if runs > MAX_WARMUP_RUNS:
        raise VersionRejected(f"model_warmup: got {runs} runs, expected at most {MAX_WARMUP_RUNS}")
    elements = sum(
        multiply((max(sample.count, 1), max(sample.batch_size, 1), *tensor.dims), most=MAX_WARMUP_ELEMENTS)
        for sample in config.model_warmup
        for tensor in sample.inputs.values()
    )
    if elements > MAX_WARMUP_ELEMENTS:
        raise VersionRejected(f"model_warmup: got more than {MAX_WARMUP_ELEMENTS} elements in all runs, expected fewer")


def _check_tensors(config: ModelConfig) -> None:
    for where, tensors in (("input", config.input), ("output", config.output)):
        for index, tensor in enumerate(tensors):
            for name, dims in (("dims", tensor.dims), ("reshape.shape", tensor.reshape.shape)):
                if len(dims) > MAX_TENSOR_DIMS:
                    raise VersionRejected(
                        f"{where}[{index}].{name}: got {len(dims)}, expected at most {MAX_TENSOR_DIMS}"
                    )
                if multiply(map(abs, dims), most=MAX_ELEMENTS) > MAX_ELEMENTS:
                    raise VersionRejected(
                        f"{where}[{index}].{name}: got {shorten(list(dims))}, expected at most {MAX_ELEMENTS} elements"
                    )
            batch = multiply((config.max_batch_size, *map(abs, tensor.dims)), most=MAX_BATCH_ELEMENTS)
            if config.backend == "openvino" and batch > MAX_BATCH_ELEMENTS:
                raise VersionRejected(
                    f"max_batch_size: got {config.max_batch_size} of {where} {shorten(tensor.name)}, expected at most "
                    f"{MAX_BATCH_ELEMENTS} elements in a batch of openvino"
                )
