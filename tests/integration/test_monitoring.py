"""Rules, dashboard and scraping, against the running stack and, where they are, Prometheus' own programs."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from prometheus_client import generate_latest
from tritonclient.utils import InferenceServerException

from tests.manifests.rendering import needs_kubectl, read_documents, render
from tests.support.dashboard import DASHBOARD, PANELS, VARIABLES, queries_of
from tests.support.ports import find_free_ports
from tests.support.promql import FOREIGN, TARGET, Exposed, kept, made, recorded, selectors
from tests.support.stack import ROOT, Stack, start_stack, wait_until
from tests.support.transformer import make_key
from worker.metrics import Metrics

FOLDER = ROOT / "manifests" / "monitoring"
ALERT_TESTS = sorted((ROOT / "tests" / "manifests").glob("alerts*.yaml"))
PROMTOOL_PATIENCE_S = 900.0  # days of evaluations, on machines that do much else
RULES = [
    rule
    for group in next(read_documents((FOLDER / "prometheusrule.yaml").read_text()))["spec"]["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
RECORDED_LABELS = recorded(RECORDED)
BROKEN = "99"  # a version that does not pass its trial
POD_MONITOR = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]
ENDPOINTS = POD_MONITOR["podMetricsEndpoints"]
# Metrics and panels that only Kubernetes, a GPU, a queue worker or a failure fills.
OF_KUBERNETES = re.compile("kube_deployment_|nereid:(replicas|workload):")
SILENT = {
    "Memory, of its limit", "CPU", "From creation to ready", "GPU", "Loads, rejections and failures",
    "Messages by outcome", "Age of messages", "Queue", "Mean of each step of a message",
    "Replicas", "Replicas missing", "Pods that do not start", "Restarts", "Throttled at the limit of CPU",
}  # fmt: skip
SILENT_RECORDS = {"nereid:failed:rate5m", "nereid:model:lost"} | {
    name for name, expr in RECORDED.items() if OF_KUBERNETES.search(expr)
}
EXPRESSIONS = [*(rule["expr"] for rule in RULES), *(expression for panel in PANELS for expression in queries_of(panel))]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, which requires keys and has a version to reject, after a few requests of each kind."""
    folder = tmp_path_factory.mktemp("stack")
    repository = folder / "repository"
    shutil.copytree(ROOT / "model_repository", repository)
    add_broken_version(repository / "iris")
    key = make_key("alice", folder / "keys")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(folder / "keys"), "NEREID_API_KEY": key}
    with start_stack(repository, folder / "log", variables=variables) as running:
        image = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
        assert running.http.post("/predict/digit-finder", files={"image": image}).status_code == HTTPStatus.UNAUTHORIZED
        running.http.headers["X-API-Key"] = key
        running.http.post("/predict/digit-finder", files={"image": image}).raise_for_status()
        row = {"name": "row", "shape": [1, 4], "datatype": "FP32", "data": [6.3, 3.3, 6.0, 2.5]}
        for path, body in (
            ("/v1/models/iris:predict", {"instances": [row["data"]]}),
            ("/v2/models/iris/infer", {"inputs": [row]}),
            ("/v2/models/iris/versions/2/infer", {"inputs": [row]}),
        ):
            running.http.post(path, json=body)  # it is counted with any status
        with triton.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as client:
            tensor = triton.InferInput("image", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([image], dtype=np.object_))
            client.infer("digit-finder", [tensor], headers={"x-api-key": key})
        yield running


def add_broken_version(model: Path) -> None:
    """Add a version with a byte that changed on the way."""
    newest = max((path for path in model.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    broken = model / BROKEN
    shutil.copytree(newest, broken)
    content = bytearray((broken / "model.onnx").read_bytes())
    content[-1] ^= 1
    (broken / "model.onnx").write_bytes(content)


@pytest.fixture(scope="module")
def exposed(stack: Stack) -> Exposed:
    """The metrics of the three processes of the stack, and of a queue worker."""
    worker = Metrics()
    worker.queue.labels("visible").set(0)
    texts = [httpx.get(url, trust_env=False).raise_for_status().text for url in metrics_urls(stack)]
    return Exposed(*texts, generate_latest(worker.registry).decode())


def metrics_urls(stack: Stack) -> list[str]:
    """URLs of the metrics of Triton, the synchroniser and the transformer."""
    return [f"http://127.0.0.1:{port}/metrics" for port in ports(stack).values()]


def ports(stack: Stack) -> dict[str, int]:
    """The port of the stack for each port of the pod."""
    return {"8002": stack.triton_metrics_port, "8003": int(stack.sync.rsplit(":", 1)[1]), "8080": stack.http_port}


def test_every_metric_and_label_is_exposed(exposed: Exposed) -> None:
    known = exposed.labels | FOREIGN | RECORDED_LABELS
    for expression in EXPRESSIONS:
        read = selectors(expression)
        assert read
        labels = TARGET | made(expression)
        for selector in read:
            assert selector.name in known, (selector.name, expression)
            assert selector.matched <= known[selector.name] | TARGET, expression
            labels |= known[selector.name]
            for label, value in selector.equal.items():
                if selector.name in exposed.labels:
                    assert value in exposed.values[selector.name, label], expression
        assert kept(expression) <= labels, expression


def test_rules_count_inference_requests_alone(exposed: Exposed) -> None:
    pattern = re.search('route=~"([^"]+)"', RECORDED["nereid:requests:rate5m"])
    assert pattern
    routes = exposed.values["nereid_requests_total", "route"]
    assert {route for route in routes if re.fullmatch(pattern[1], route)} == {
        "/predict/{model}",
        "/v1/models/{model}:predict",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        "/inference.GRPCInferenceService/ModelInfer",
    }
    assert "/v2/health/ready" in routes
    # One pattern, wherever inference requests are counted.
    patterns = {found for expression in EXPRESSIONS for found in re.findall('route=~"([^"]+)"', expression)}
    assert patterns == {pattern[1]}


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_has_severity_impact_and_next_step(rule: dict[str, Any]) -> None:
    severity, annotations = rule["labels"]["severity"], rule["annotations"]
    assert severity in {"critical", "warning", "info"}
    assert set(annotations) == {"summary", "description", "runbook", "runbook_url"}
    assert annotations["summary"].startswith("{{ $labels.namespace }}")
    impact = re.fullmatch(r"Impact: [^.]+\. Until morning: (yes|no)\b.*\.", annotations["description"])
    assert impact
    # A critical alert cannot wait until morning, and any other one can.
    assert (impact[1] == "no") == (severity == "critical")
    assert annotations["runbook"].startswith("kubectl ")
    # The expression keeps the labels that the text names.
    read = {label for selector in selectors(rule["expr"]) for label in RECORDED_LABELS.get(selector.name, ())}
    named = set(re.findall(r"\$labels\.(\w+)", str(annotations)))
    assert named <= (kept(rule["expr"]) | read or TARGET), named
    # A model's name is that of any folder of the bucket: unsafe to paste into a shell.
    assert not set(re.findall(r"\$labels\.(\w+)", annotations["runbook"])) & {"model", "version"}


def test_the_dashboard_fits_together() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "namespace", "model"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert set(re.findall(r"\$\w+", target["expr"])) <= VARIABLES.keys()
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept(
                queries_of({"targets": [target]})[0]
            ) | {label for name, labels in RECORDED_LABELS.items() if name in target["expr"] for label in labels}


@needs_kubectl
def test_dashboard_reaches_grafana_as_one_configmap() -> None:
    objects = {entry["kind"]: entry for entry in render("monitoring").objects}
    assert set(objects) == {"ConfigMap", "PodMonitor", "PrometheusRule"}
    dashboard = objects["ConfigMap"]
    assert dashboard["metadata"]["name"] == "nereid-dashboard"
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"]) == DASHBOARD


def test_alerts_fire_as_their_scenarios_expect(tmp_path: Path) -> None:
    promtool = find_program("promtool")
    write_rules(tmp_path)
    run(promtool, "check", "rules", "rules.yaml", folder=tmp_path)
    # Only the summaries are compared; the other texts differ from the rule by names alone.
    write_rules(tmp_path, annotations={"summary"})
    for file in ALERT_TESTS:
        shutil.copy(file, tmp_path)
    run(promtool, "test", "rules", *(file.name for file in ALERT_TESTS), folder=tmp_path)


def test_each_alert_has_a_scenario_with_and_one_without_it() -> None:
    fires, silent, spared = set(), set(), set()
    for case in load_alert_tests():
        series = "\n".join(given["series"] for given in case["input_series"])
        for test in case["alert_rule_test"]:
            expected = test.get("exp_alerts", [])
            namespaces = {alert["exp_labels"]["namespace"] for alert in expected}
            fires |= {test["alertname"] for namespace in namespaces if namespace == "vision"}
            silent |= {test["alertname"] for _ in [None] if not expected}
            spared |= {test["alertname"] for _ in [None] if expected and 'namespace="calm"' in series}
            # Two teams: what is one's is never the other's.
            assert "calm" not in namespaces
    assert fires == silent == spared == {rule["alert"] for rule in ALERTS}


def load_alert_tests() -> list[dict[str, Any]]:
    """Cases of `promtool test rules`."""
    return [case for file in ALERT_TESTS for case in next(read_documents(file.read_text()))["tests"]]


def run(*command: str, folder: Path) -> None:
    """Run a program, and check that it succeeds."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=PROMTOOL_PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_pod_and_computes_the_rules(stack: Stack, tmp_path: Path) -> None:
    program = find_program("prometheus")
    write_rules(tmp_path)
    (port,) = find_free_ports(1)
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape(index, endpoint, stack) for index, endpoint in enumerate(ENDPOINTS)],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    log = tmp_path / "log"
    with log.open("wb") as output:
        prometheus = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yaml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as client:
            image = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()

            def computed() -> bool:
                # A rate needs requests while Prometheus looks.
                stack.http.post("/predict/digit-finder", files={"image": image}).raise_for_status()
                stack.http.post("/predict/digit-finder", headers={"X-API-Key": "another"})
                request_rejected_version(stack)
                time.sleep(0.2)
                assert prometheus.poll() is None, log.read_text()
                silent = {
                    panel["title"] for panel in PANELS for request in queries_of(panel) if not query(client, request)
                }
                missing.clear()
                missing.update(silent - SILENT, {name for name in RECORDED if not query(client, name)} - SILENT_RECORDS)
                return not missing

            missing: set[str] = set()
            try:
                wait_until(computed, log=log)
            except AssertionError as exc:
                raise AssertionError(f"nothing of {sorted(missing)}") from exc
            up = [result["metric"] | {"up": result["value"][1]} for result in query(client, "up")]
            known = {"__name__": "up", "job": "nereid", "namespace": "nereid", "pod": "nereid-predictor-1"}
            assert sorted(up, key=lambda target: target["container"]) == [
                known | {"container": container, "instance": f"127.0.0.1:{ports(stack)[port]}", "up": "1"}
                for container, port in (
                    ("kserve-container", "8002"),
                    ("synchroniser", "8003"),
                    ("transformer-container", "8080"),
                )
            ]
            check_rejection_is_no_error(client)
            groups = client.get("/rules").raise_for_status().json()["data"]["groups"]
            evaluated = [rule for group in groups for rule in group["rules"]]
            assert len(evaluated) == len(RULES)
            assert [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"] == []
            firing = client.get("/alerts").raise_for_status().json()["data"]["alerts"]
            named = ("alertname", "namespace", "model", "version")
            fired = [
                tuple(alert["labels"].get(name) for name in named) for alert in firing if alert["state"] == "firing"
            ]
            assert fired == [("NereidVersionRefused", "nereid", "iris", BROKEN)]
            # The query of the dashboard's variable.
            (variable,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "namespace")
            request = re.fullmatch(r"label_values\((.+), namespace\)", variable["query"]["query"])
            assert request
            values = client.get("/label/namespace/values", params={"match[]": request[1]}).raise_for_status().json()
            assert values["data"] == ["nereid"]
    finally:
        prometheus.terminate()
        try:
            prometheus.wait(30)
        finally:
            prometheus.kill()


def request_rejected_version(stack: Stack) -> None:
    """Request the version that did not pass its trial, by HTTP and by gRPC."""
    row = [6.3, 3.3, 6.0, 2.5]
    body = {"inputs": [{"name": "row", "shape": [1, 4], "datatype": "FP32", "data": row}]}
    path = f"/v2/models/iris/versions/{BROKEN}/infer"
    assert stack.http.post(path, json=body).status_code == HTTPStatus.SERVICE_UNAVAILABLE
    tensor = triton.InferInput("row", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([row], dtype=np.float32))
    key = {"x-api-key": stack.http.headers["X-API-Key"]}
    with (
        triton.InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client,
        pytest.raises(InferenceServerException) as failure,
    ):
        client.infer("iris", [tensor], model_version=BROKEN, headers=key)
    assert failure.value.status() == "StatusCode.FAILED_PRECONDITION"


def check_rejection_is_no_error(client: httpx.Client) -> None:
    """Requests for a rejected version are counted by both protocols, and are no errors of the server."""
    rejected = query(client, 'nereid:requests:rate5m{model="iris", version=""} > 0')
    assert {result["metric"]["status"] for result in rejected} >= {"503", "FAILED_PRECONDITION"}
    (ratio,) = query(client, "nereid:errors:ratio5m")
    assert float(ratio["value"][1]) == 0


def query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """Series that an expression gives now; none while Prometheus starts."""
    try:
        response = client.get("/query", params={"query": expression})
    except httpx.TransportError:
        return []
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []
    result: list[dict[str, Any]] = response.raise_for_status().json()["data"]["result"]
    return result


def scrape(index: int, endpoint: Mapping[str, Any], stack: Stack) -> dict[str, Any]:
    """The scrape configuration that the Prometheus operator makes of an endpoint, with the containers of a pod."""
    meta = "__meta_kubernetes_pod"
    pod = {
        "__meta_kubernetes_namespace": "nereid",
        f"{meta}_name": "nereid-predictor-1",
        f"{meta}_ip": "127.0.0.1",
        f"{meta}_label_component": "predictor",
        f"{meta}_label_app_kubernetes_io_part_of": "nereid",
    }
    # One target for each declared port, one without for a container that declares none.
    containers = (
        ("kserve-container", ""),
        ("synchroniser", ""),
        ("transformer-container", ":8080"),
        ("transformer-container", ":8081"),
        ("queue-proxy", ":8012"),
    )
    own = [
        {"source_labels": [source], "target_label": target}
        for source, target in (
            ("__meta_kubernetes_namespace", "namespace"),
            (f"{meta}_container_name", "container"),
            (f"{meta}_name", "pod"),
            (f"{meta}_label_" + re.sub("[^a-z]", "_", POD_MONITOR["jobLabel"]), "job"),
        )
    ]
    given = []
    for rule in endpoint["relabelings"]:
        written = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in rule.items()}
        for there, here in ports(stack).items():
            if "replacement" in written:
                written["replacement"] = written["replacement"].replace(there, str(here))
        given.append(written)
    return {
        "job_name": f"podMonitor/nereid/nereid/{index}",
        "static_configs": [
            {"targets": [f"127.0.0.1{port}"], "labels": pod | {f"{meta}_container_name": name}}
            for name, port in containers
        ],
        "relabel_configs": [*own, *given],
    }


def write_rules(folder: Path, *, annotations: Collection[str] | None = None) -> None:
    """Write the rules as Prometheus reads them; with only these annotations, where they are given."""
    spec = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())["spec"]
    for rule in (rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule):
        of_rule = rule["annotations"]
        rule["annotations"] = {name: of_rule[name] for name in (of_rule if annotations is None else annotations)}
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))


def find_program(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is absent: apt-get install prometheus")
    return found
