"""Plans of a fleet, and the simulation of its queues beside closed forms of queueing theory."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import yaml

from loadtest.growth import __main__ as command
from loadtest.growth import fleet, limits
from loadtest.growth.fleet import Headroom, Node
from loadtest.growth.queueing import Pod, erlang_b, erlang_c, poisson, simulate
from tests.support.stack import ROOT

NONE = Headroom(utilisation=1, burst=1, zones=1, surge=0)
NODE = Node(16, 64)
PRODUCTION = ROOT / "manifests/components/production"


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize(
    ("load", "servers", "share"), [(1, 1, 0.5), (2, 3, 0.2105), (10, 10, 0.2146), (12, 20, 0.0098)]
)
def test_erlang_b_is_that_of_published_tables(load: float, servers: int, share: float) -> None:
    assert erlang_b(load, servers) == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize(("load", "servers", "share"), [(0.7, 1, 0.7), (2, 3, 0.4444), (8, 10, 0.4092)])
def test_erlang_c_is_that_of_published_tables(load: float, servers: int, share: float) -> None:
    assert erlang_c(load, servers) == pytest.approx(share, abs=5e-5)


def simulated(pod: Pod, rate: float, *, pods: int = 1, balancer: str = "random", requests: int = 150_000) -> Any:
    random = np.random.default_rng(7)
    arrivals = poisson(random, [(requests / rate, rate)])
    since_s = 0.1 * requests / rate
    return simulate(pod, arrivals, pods=pods, balancer=balancer, random=random, since_s=since_s)


@pytest.mark.parametrize("servers", [1, 2, 8])
def test_simulated_wait_is_that_of_erlang_c(servers: int) -> None:
    service_s, rate = 0.02, 0.8 * servers / 0.02
    found = simulated(Pod([count / service_s for count in range(1, servers + 1)], shape=()), rate)
    wait_s = erlang_c(rate * service_s, servers) / (servers / service_s - rate)
    assert np.mean(found.latencies_s) - service_s == pytest.approx(wait_s, rel=0.06)


def test_simulated_wait_of_equal_services_is_that_of_pollaczek_and_khinchine() -> None:
    # M/D/1: half of what M/M/1 waits.
    found = simulated(Pod([50]), 35)
    assert np.mean(found.latencies_s) - 0.02 == pytest.approx(0.02 * 0.7 / (2 * (1 - 0.7)), rel=0.05)


@pytest.mark.parametrize("utilisation", [0.9, 1.5])
def test_simulated_share_of_rejected_requests_is_that_of_a_queue_with_an_end(utilisation: float) -> None:
    room = 6  # M/M/1/K
    found = simulated(Pod([50], room=room, shape=()), utilisation / 0.02)
    expected = (1 - utilisation) * utilisation**room / (1 - utilisation ** (room + 1))
    assert found.rejected == pytest.approx(expected, rel=0.04)


def test_a_random_balancer_gives_each_pod_its_share_of_poisson_arrivals() -> None:
    # Hence the results do not change with the number of pods, and a part of a large fleet stands for all of it.
    # The time in M/M/1 is exponential.
    p95_ms = 1000 * math.log(20) / (50 - 35)
    for pods in (1, 20):
        assert simulated(Pod([50], shape=()), 35 * pods, pods=pods).figures[1] == pytest.approx(p95_ms, rel=0.06)


def test_the_lesser_of_two_pods_is_that_of_the_supermarket_model() -> None:
    # M. Mitzenmacher, The Power of Two Choices, 2001: for many pods.
    utilisation = 0.9
    found = simulated(
        Pod([50], shape=()), utilisation * 100 / 0.02, pods=100, balancer="least of two", requests=400_000
    )
    expected_s = 0.02 * sum(utilisation ** (2**count - 2) for count in range(1, 10))
    assert np.mean(found.latencies_s) == pytest.approx(expected_s, rel=0.06)


def test_round_robin_gives_each_pod_every_nth_request() -> None:
    # With as many pods as requests at once, none waits.
    found = simulate(
        Pod([1 / 0.9]), np.arange(0, 50, 0.1), pods=10, balancer="round robin", random=np.random.default_rng(1)
    )
    assert found.latencies_s.max() == pytest.approx(0.9)


def test_requests_that_share_a_server_take_the_mean_time_of_processor_sharing() -> None:
    # M/G/1-PS (L. Kleinrock, 1967): whatever the distribution of the work, here equal.
    found = simulated(Pod([50] * 500), 35)
    assert np.mean(found.latencies_s) == pytest.approx(0.02 / (1 - 0.7), rel=0.05)


def test_two_requests_that_share_a_server_take_turns() -> None:
    found = simulate(Pod([1, 1]), np.array([0.0, 0.5, 10.0]), pods=1, random=np.random.default_rng(1))
    # The first has half of its work done when the second comes: 0.5 s alone, 1 s shared; the second then 0.5 s alone.
    assert sorted(found.latencies_s) == pytest.approx([1.0, 1.5, 1.5])


def test_pod_has_the_speeds_that_were_measured() -> None:
    pod = Pod.bounded(46.7, 0.035, slots=4, room=36)
    assert pod.speeds == pytest.approx([28.57, 46.7, 46.7, 46.7], abs=0.01)
    assert simulated(pod, 1, requests=3000).figures[0] == pytest.approx(35, rel=0.05)
    pod = Pod.measured({1: 20, 4: 14, 6: 16}, slots=6, room=38, shape=(1, 1))
    assert pod.speeds == pytest.approx([20, 18, 16, 14, 15, 16])
    assert pod.capacity == 16


def test_nothing_that_was_accepted_has_no_percentiles() -> None:
    found = simulate(Pod([1], room=0), np.arange(3.0), pods=1, random=np.random.default_rng(1))
    assert found.rejected == 1
    assert all(map(math.isnan, found.figures[:3]))


@pytest.mark.parametrize(
    ("headroom", "pods", "surged"),
    [
        (NONE, 20, 20),
        (Headroom(utilisation=0.8, burst=1, zones=1, surge=0), 25, 25),
        (Headroom(utilisation=1, burst=1.5, zones=1, surge=0.25), 30, 38),
        (Headroom(utilisation=1, burst=1, zones=3, surge=0), 30, 30),
        (Headroom(utilisation=1, burst=1, zones=2, surge=0.5), 40, 60),
    ],
)
def test_each_factor_of_the_headroom_adds_pods(headroom: Headroom, pods: int, surged: int) -> None:
    found = fleet.plan(1000, 50, headroom, NODE)
    assert (found.pods, found.surged) == (pods, surged)
    assert found.nodes == math.ceil(surged / NODE.pods)
    assert fleet.gpus(1000, 50, headroom) == surged


def test_a_zone_that_fails_leaves_enough_pods() -> None:
    headroom = Headroom(utilisation=0.7, burst=1.2, zones=3, surge=0)
    found = fleet.plan(10_000, 46.7, headroom, NODE)
    assert found.pods * 2 / 3 * 46.7 * 0.7 >= 1.2 * 10_000
    assert fleet.plan(1, 46.7, headroom, NODE).pods == 3  # one in each zone


def test_price_of_a_million_requests_is_that_of_the_hours_they_take() -> None:
    found = fleet.plan(1000, 50, NONE, NODE)  # 20 pods, 5 on a node
    assert (NODE.pods, found.nodes, found.cpus, found.gib) == (5, 4, 64, 256)
    # A million requests take 1000 s.
    assert found.per_million(3.6) == pytest.approx(1.0)


def test_pod_is_that_of_the_manifests() -> None:
    containers = read("manifests/base/inferenceservice.yaml")["spec"]["predictor"]["containers"]
    cpus = [str(each["resources"]["requests"]["cpu"]) for each in containers]
    assert sum(float(each.removesuffix("m")) / (1000 if each.endswith("m") else 1) for each in cpus) == fleet.POD_CPUS
    triton, *others = (each["resources"] for each in containers)  # of which production requests the limit
    texts = [triton["limits"]["memory"], *(each["requests"]["memory"] for each in others)]
    gib = sum(float(each[:-2]) / (1024 if each.endswith("Mi") else 1) for each in texts)
    assert gib == fleet.POD_GIB


def load(**changes: Any) -> limits.Load:
    known = {
        "per_pod": 10.0, "headroom": NONE, "node": NODE, "poll_s": 10.0, "pages": 1, "files": 11, "models": 1,
        "log_bytes": 2**20 / 100, "body_bytes": 125_000.0, "latency_s": 0.05, "image_gb": 10.0, "gbps": 10.0,
    }  # fmt: skip
    return limits.Load(**{**known, **changes})


def test_limits_come_in_the_order_in_which_they_break() -> None:
    found = limits.find(load())
    assert all(one.rate <= other.rate for one, other in pairwise(found))
    assert found[0].name == "maxReplicas of overlays/production"
    assert len({limit.name for limit in found}) == len(found)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("endpoints of a Service", 2500),  # 250 pods of 10 requests/s
        ("addresses of a /24", 251 / 0.12),  # a pod for each ten, and a node for each five pods
        ("nodes of a cluster", 250_000),  # 25,000 pods, 5 on a node
        ("S3: LIST/s", 550_000),  # 55,000 pods, one each ten seconds
        ("S3: GET/s of a publish", 50_000),  # 5,000 pods, 11 files each in ten seconds
        ("logs into a Loki", 400),
        ("bandwidth of one ingress", 10_000),  # of a megabit each
        ("connections of one nginx worker", 163_840),
        ("series of a Prometheus of 8 GiB", 8 * 2**30 / 2.5e9 * 300_000 / 321 * 10),
        ("registry: pulls in 300 s", 3750),  # 375 pods on 75 nodes: 37.5 more take 375 GB
    ],
)
def test_limit_is_reached_at_the_rate_that_its_inputs_give(name: str, rate: float) -> None:
    found = {limit.name: limit for limit in limits.find(load())}
    assert found[name].rate == pytest.approx(rate)


def test_limits_of_production_are_those_of_its_manifests() -> None:
    found = {limit.name: limit for limit in limits.find(load())}
    predictor = read("manifests/components/production/inferenceservice.yaml")["spec"]["predictor"]
    assert found["maxReplicas of overlays/production"].limit == predictor["maxReplicas"]
    quota = read("manifests/components/production/resourcequota.yaml")["spec"]["hard"]
    by_memory = int(quota["requests.memory"].removesuffix("Gi")) // fleet.POD_GIB
    by_cpu = int(quota["requests.cpu"]) // fleet.POD_CPUS
    assert found["memory of its quota"].limit == by_memory <= min(by_cpu, int(quota["pods"]))


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["nereid", *words.split()])
    status = command.main()
    return status, capsys.readouterr().out


def test_prices_that_are_not_given_have_no_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(monkeypatch, capsys, "plan --rate-per-pod 46.7")
    assert status == 0
    assert "per million" not in output
    assert "price of CPUs: CPU_PRICE=<per vCPU and hour>" in output
    assert "price of GPUs: GPU_RATE=" in output
    status, output = run(
        monkeypatch, capsys, "plan --rate-per-pod 50 --rates 1000 --utilisation 1 --burst 1 --zones 1 --surge 0 "
        "--cpu-price 0.05 --gpu-rate 500 --gpu-price 2"
    )  # fmt: skip
    cells = next(line for line in output.splitlines() if line.startswith("│ 1,000 ")).replace("│", " ").split()
    # 20 pods on 4 nodes of 16 vCPUs; 2 GPUs.
    assert cells == ["1,000", "20", "20", "52.0", "95.0", "4", "3.20", "0.89", "2", "4.00", "1.11"]
    assert "price of" not in output


def test_node_that_holds_no_pod_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(monkeypatch, capsys, "plan --rate-per-pod 50 --node-cpus 2")
    assert (status, output.count("\n")) == (1, 1)
    assert "a node of 2 vCPUs and 64 GiB holds no pod of 2.6 CPUs and 4.75 GiB; next: larger --node-cpus" in output


def test_queueing_shows_each_balancer_and_what_growth_costs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(monkeypatch, capsys, "queueing --rate-per-pod 46.7 --rates 100")
    assert status == 0
    assert output.startswith("a pod: 28.6, 46.7, 46.7, 46.7 requests/s with 1 to 4 in progress; room for 36")
    assert "least of two" in output
    assert "The rate grows at once from 100 requests/s" in output
    status, output = run(monkeypatch, capsys, "queueing")
    assert (status, output.count("\n")) == (1, 1)
    assert "--rate-per-pod is missing" in output
