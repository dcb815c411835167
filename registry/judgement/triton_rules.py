"""Rejects what Triton rejects in a config before any backend reads it, with the reason, which Triton only logs.

The words are those of `ValidateModelConfig` of triton-inference-server/core r24.10; to the client that loads the model
Triton returns "failed to poll from model repository".
"""

from collections.abc import Iterator

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelQueuePolicy

from registry.errors import VersionRejected

# Platforms of the backends whose pairs Triton knows.
_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}


def reject_as_triton(config: ModelConfig) -> None:
    """Accept a config that Triton accepts.

    Args:
        config: As Triton reads it, except its name.

    Raises:
        VersionRejected: Triton would reject it.
    """
    platform = _PLATFORMS.get(config.backend)
    if platform and config.platform not in {"", platform}:
        raise VersionRejected(f"unexpected 'platform' and 'backend' pair, got: {config.platform}, {config.backend}")
    if config.HasField("dynamic_batching"):
        for reason in _iterate_batching(config):
            raise VersionRejected(f"dynamic_batching: {reason}")


def _iterate_batching(config: ModelConfig) -> Iterator[str]:
    """Yield the problems of the dynamic batching of a config, in Triton's order."""
    batching, most = config.dynamic_batching, config.max_batch_size
    for size in batching.preferred_batch_size:
        if size <= 0:
            yield f"preferred size must be positive, got {size}"
        if size > most:
            yield f"preferred size must be <= max batch size, got preferred_batch_size {size}, max_batch_size {most}"
    levels, policies = batching.priority_levels, batching.priority_queue_policy
    if levels and not 1 <= batching.default_priority_level <= levels:
        yield f"default priority level must be in range [1, {levels}], got {batching.default_priority_level}"
    if levels and (strange := sorted(level for level in policies if not 1 <= level <= levels)):
        yield f"priority queue policy must have priority level in range [1, {levels}], got {strange[0]}"
    if batching.preserve_ordering:
        if levels > 1:
            yield "only one priority level is allowed when 'preserve_ordering' is true"
        for policy in (batching.default_queue_policy, *(policies[level] for level in sorted(policies))):
            if policy.default_timeout_microseconds and policy.timeout_action == ModelQueuePolicy.DELAY:
                yield "queue policy can not have DELAY as timeout action when 'preserve_ordering' is true"
