"""The dashboard of manifests/monitoring, and what it requests of Prometheus."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.stack import ROOT

DASHBOARD = json.loads((ROOT / "manifests" / "monitoring" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Values that Grafana fills in.
VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$model": ".*"}


def queries_of(panel: Mapping[str, Any]) -> list[str]:
    """The expressions of a panel."""
    expressions = []
    for target in panel["targets"]:
        expression = target["expr"]
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        expressions.append(expression)
    return expressions
