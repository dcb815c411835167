"""Metrics that the parts expose, and metrics that PromQL expressions read."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

# Labels of each pod: added by the operator to scraped series, by kube-state-metrics and cAdvisor to theirs.
TARGET = frozenset({"namespace", "pod", "container", "job", "instance"})
# Exposed by other programs; names from kube-state-metrics' docs/metrics/workload/*-metrics.md, cAdvisor's
# docs/storage/prometheus.md, Triton's docs/user_guide/metrics.md (these only with a GPU).
FOREIGN = {
    "up": set[str](),
    "kube_deployment_created": {"deployment"},
    "kube_deployment_metadata_generation": {"deployment"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_deployment_status_condition": {"deployment", "condition", "status", "reason"},
    "kube_deployment_status_observed_generation": {"deployment"},
    "kube_deployment_status_replicas": {"deployment"},
    "kube_deployment_status_replicas_available": {"deployment"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_min_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"horizontalpodautoscaler"},
    "kube_pod_status_phase": {"phase"},
    "kube_pod_container_status_last_terminated_reason": {"reason"},
    "kube_pod_created": set[str](),
    "kube_pod_status_ready_time": set[str](),
    "kube_pod_status_reason": {"reason"},
    "kube_pod_container_status_restarts_total": set[str](),
    "kube_pod_container_resource_limits": {"resource", "unit"},
    "container_memory_working_set_bytes": set[str](),
    "container_cpu_usage_seconds_total": set[str](),
    "container_cpu_cfs_periods_total": set[str](),
    "container_cpu_cfs_throttled_periods_total": set[str](),
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_gpu_memory_used_bytes": {"gpu_uuid"},
    "nv_gpu_memory_total_bytes": {"gpu_uuid"},
}


@dataclass(frozen=True)
class Selector:
    """A metric that an expression reads.

    Attributes:
        name: of the metric.
        matched: labels in its matchers.
        equal: labels that must have one value, with it.
    """

    name: str
    matched: frozenset[str]
    equal: Mapping[str, str]


class Exposed:
    """Names, labels and values in `/metrics`."""

    def __init__(self, *texts: str) -> None:
        # Before the first sample only the name is exposed.
        self.labels = {name: set[str]() for text in texts for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)}
        self.values: dict[tuple[str, str], set[str]] = {}
        for family in (family for text in texts for family in text_string_to_metric_families(text)):
            for sample in family.samples:
                # The parser removes the suffix of counters; Triton has none.
                bare = sample.name.removesuffix("_total")
                name = bare if bare in self.labels else sample.name
                self.labels.setdefault(name, set()).update(sample.labels)
                for label, value in sample.labels.items():
                    self.values.setdefault((name, label), set()).add(value)


def selectors(expression: str) -> list[Selector]:
    """All metrics that an expression reads."""
    found = []
    for node in _nodes(promql_parser.parse(expression)):
        if isinstance(node, promql_parser.VectorSelector):
            matchers = node.matchers.matchers
            equal = {matcher.name: matcher.value for matcher in matchers if matcher.op == promql_parser.MatchOp.Equal}
            found.append(Selector(node.name or "", frozenset(matcher.name for matcher in matchers), equal))
    return found


def kept(expression: str) -> set[str]:
    """All labels that an expression keeps by name."""
    nodes = _nodes(promql_parser.parse(expression))
    modifiers = [node.modifier for node in nodes if isinstance(node, promql_parser.AggregateExpr)]
    return {label for modifier in modifiers if modifier is not None for label in modifier.labels}


def made(expression: str) -> set[str]:
    """All labels that an expression creates."""
    calls = [node for node in _nodes(promql_parser.parse(expression)) if isinstance(node, promql_parser.Call)]
    return {call.args[1].val for call in calls if call.func.name == "label_replace"}


def recorded(rules: Mapping[str, str]) -> dict[str, set[str]]:
    """Labels of recorded series by name; a rule may read an earlier one's series.

    Args:
        rules: expressions by the series that they record, in order.
    """
    known: dict[str, set[str]] = {}
    for name, expression in rules.items():
        read = {label for selector in selectors(expression) for label in known.get(selector.name, ())}
        known[name] = kept(expression) or read
    return known


def _nodes(expression: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(expression, found.append)
    return iter(found)
