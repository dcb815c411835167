"""A transformer in front of several predictors, as in manifests/overlays/separate-transformer."""

import shutil
from pathlib import Path

import httpx

from tests.support.stack import ROOT, wait_until
from tests.support.transformer import start_transformer
from tests.support.triton import Triton, start_triton

ROW = [[6.3, 3.3, 6.0, 2.5]]


def test_every_replica_gets_its_share_and_one_that_goes_is_not_missed(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "model_repository" / "iris", repository / "iris")
    with start_triton(repository, tmp_path / "first") as first, start_triton(repository, tmp_path / "second") as second:
        # The name of a headless Service resolves to an address for each replica.
        replicas = f"ipv4:127.0.0.1:{first.grpc_port},127.0.0.1:{second.grpc_port}"
        with start_transformer(replicas, tmp_path / "log") as transformer:
            # The first connection may be there before the second.
            wait_until(
                lambda: min(send(transformer.http, first), send(transformer.http, second)) > 0,
                log=tmp_path / "log",
            )
            before = [count(triton) for triton in (first, second)]
            for _ in range(40):
                send(transformer.http, first)
            shares = [count(triton) - was for triton, was in zip((first, second), before, strict=True)]
            assert sum(shares) == 40
            assert min(shares) >= 15
            first.process.kill()
            first.process.wait()
            was = count(second)
            for _ in range(20):
                send(transformer.http, second)
            assert count(second) - was == 20


def send(http: httpx.Client, counted: Triton) -> float:
    """Send a request, and return how many requests a predictor has completed."""
    http.post("/predict/iris", json=ROW).raise_for_status()
    return count(counted) if counted.process.poll() is None else 0


def count(triton: Triton) -> float:
    """How many requests a predictor has completed."""
    metrics = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics", trust_env=False).text
    lines = [line for line in metrics.splitlines() if line.startswith("nv_inference_request_success{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
