"""The second model of a request goes while requests are in progress."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack, wait_until
from tests.support.transformer import DIGITS, gauge

MODELS = ROOT / "model_repository"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A stack with both models, and its repository."""
    folder = tmp_path_factory.mktemp("second-step")
    for model in ("digits", "digit-finder"):
        shutil.copytree(MODELS / model, folder / "models" / model)
    with start_stack(folder / "models", folder / "log", variables={"POLL_S": "0.5"}) as stack:
        yield stack, folder / "models"


class Client(threading.Thread):
    """Sends one request after the other, and keeps what was returned."""

    def __init__(self, stack: Stack, query: str) -> None:
        super().__init__()
        self._url, self._query = f"http://127.0.0.1:{stack.http_port}", query
        self.responses: list[httpx.Response] = []
        self.ended = threading.Event()

    def run(self) -> None:
        headers = {"Content-Type": "image/jpeg"}
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as http:
            while not self.ended.is_set():
                self.responses.append(http.post(f"/predict/digit-finder{self._query}", content=DIGITS, headers=headers))

    def wait_for(self, status: int, log: Path) -> None:
        """Wait for the next response of this status."""
        seen = len(self.responses)
        wait_until(lambda: any(each.status_code == status for each in self.responses[seen:]), log=log)


@contextmanager
def clients(stack: Stack) -> Iterator[tuple[Client, Client]]:
    """One with two steps, one with the first alone."""
    pair = Client(stack, "?then=digits"), Client(stack, "")
    for client in pair:
        client.start()
    try:
        for client in pair:
            client.wait_for(200, stack.log)
        yield pair
    finally:
        for client in pair:
            client.ended.set()
        for client in pair:
            client.join()


def test_second_model_unloaded_by_hand_fails_its_requests_only(served: tuple[Stack, Path]) -> None:
    stack, _ = served
    (rule,) = (word for word in stack.part("tritonserver").cmdline() if word.startswith("--grpc-restricted"))
    secret = ("triton-grpc-protocol-nereid", rule.rpartition("=")[2])
    with clients(stack) as (two, one):
        with grpc.insecure_channel(f"127.0.0.1:{stack.triton_grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            unload = service_pb2.RepositoryModelUnloadRequest(model_name="digits")
            stub.RepositoryModelUnload(unload, metadata=[secret], timeout=PATIENCE_S)
        two.wait_for(503, stack.log)
        two.wait_for(200, stack.log)  # the synchroniser has had it loaded again
        one.wait_for(200, stack.log)
    check(two, one, {200, 503}, stack)


def test_second_model_whose_folder_goes_is_unknown_and_comes_back(served: tuple[Stack, Path], tmp_path: Path) -> None:
    stack, repository = served
    with clients(stack) as (two, one):
        shutil.move(repository / "digits", tmp_path / "digits")
        two.wait_for(404, stack.log)
        shutil.move(tmp_path / "digits", repository / "digits")
        two.wait_for(200, stack.log)
    check(two, one, {200, 503, 404}, stack)
    missing = [each.json() for each in two.responses if each.status_code == 404]
    assert {each["error"] for each in missing} == {
        "parameter 'then' (expected a classifier): model 'digits' is unknown"
    }
    assert {each["code"] for each in missing} == {"model_not_found"}


def check(two: Client, one: Client, allowed: set[int], stack: Stack) -> None:
    assert {each.status_code for each in two.responses} <= allowed
    assert {each.status_code for each in one.responses} == {200}
    whole = [each.json() for each in two.responses if each.status_code == 200]
    assert all(prediction["classification"] for each in whole for prediction in each["predictions"])
    wait_until(lambda: gauge(stack, "nereid_in_flight") == 0, log=stack.log)
    log = stack.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert "never retrieved" not in log
