"""The queue worker with the real stack, S3 and SQS: each image gets exactly one result, whatever fails meanwhile."""

import base64
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.queues import Queues, create_queues, start_worker
from tests.support.s3 import BUCKET, S3, FaultyProxy, start_s3
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_shipped, wait_until

MODEL = "digit-classes"
IMAGE = (ROOT / "loadtest" / "pictures" / "middle-two.jpg").read_bytes()
VISIBILITY = {"WORKER_VISIBILITY_S": "2"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start_shipped(tmp_path_factory.mktemp("stack"), MODEL) as started:
        yield started


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


@pytest.fixture
def queues(s3: S3, tmp_path: Path) -> Queues:
    return create_queues(s3, tmp_path.name)


def url_of(stack: Stack) -> str:
    return str(stack.http.base_url)


def pointer(prefix: str, name: str, **members: Any) -> dict[str, Any]:
    return {"s3": f"s3://{BUCKET}/{prefix}/{name}.jpg", "model": MODEL, **members}


def put_images(s3: S3, prefix: str, count: int) -> list[dict[str, Any]]:
    """Upload images, each another one, and return messages that point to them."""
    for index in range(count):
        s3.put(f"{prefix}/{index}.jpg", IMAGE + bytes([index % 256, index // 256]))
    return [pointer(prefix, str(index)) for index in range(count)]


def results(s3: S3, prefix: str) -> dict[str, dict[str, Any]]:
    """The results by key."""
    keys = [key for key in s3.keys(prefix) if key.endswith(".json")]
    return {key: json.loads(s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys}


def is_served(queues: Queues) -> bool:
    # Twice: moto counts one state after the other, and a message that becomes visible in between is in none of them.
    return not any(queues.count("All") for _ in range(2))


def check_one_result_each(s3: S3, prefix: str, count: int) -> None:
    found = results(s3, prefix)
    assert sorted(key.split(".jpg.")[0] for key in found) == sorted(f"{prefix}/{index}" for index in range(count))
    assert {document["predictions"][0]["class"] for document in found.values()} == {"2"}
    # And no other version of any: what was written was never written again.
    versions = s3.client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    keys = [each["Key"] for page in versions for each in page.get("Versions", [])]
    assert len(keys) == len(set(keys))


def test_every_form_of_message_gets_its_result(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    names = ["pointer", "two words+é", "sns", "bridge", "parameters"]
    for name in names:
        s3.put(f"{prefix}/{name}.jpg", IMAGE)
    event = {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": BUCKET}, "object": {"key": f"{prefix}/two+words%2B%C3%A9.jpg"}},
            }
        ]
    }
    sns = json.dumps(event).replace("two+words%2B%C3%A9", "sns")
    bridge = {"bucket": {"name": BUCKET}, "object": {"key": f"{prefix}/bridge.jpg"}}
    queues.send(
        pointer(prefix, "pointer"),
        event,
        {"Type": "Notification", "Message": sns},
        {"detail-type": "Object Created", "detail": bridge},
        pointer(prefix, "parameters", parameters={"top_k": 2}),
        {"Event": "s3:TestEvent"},
        {"image": {"b64": base64.b64encode(IMAGE).decode()}, "model": MODEL},
    )
    place = f"s3://{BUCKET}/{prefix}/results/"
    with start_worker(s3, queues, url_of(stack), log, WORKER_MODEL=MODEL, WORKER_RESULTS=place) as worker:
        wait_until(lambda: is_served(queues), log=log)
        metrics = httpx.get(f"http://127.0.0.1:{worker.port}/metrics", trust_env=False).text
        assert httpx.get(f"http://127.0.0.1:{worker.port}/healthz", trust_env=False).is_success
    assert 'nereid_worker_messages_total{outcome="done"} 7.0' in metrics
    assert 'nereid_worker_results_total{result="written"} 6.0' in metrics
    found = results(s3, prefix)
    assert len(found) == 6
    for name in names:
        (key,) = (key for key in found if f"/{name}.jpg." in key)
        assert key.startswith(f"{prefix}/results/{BUCKET}/{prefix}/{name}.jpg.{MODEL}.")
        assert found[key]["input"]["image"] == f"s3://{BUCKET}/{prefix}/{name}.jpg"
        assert found[key]["predictions"][0]["class"] == "2"
        assert len(found[key]["predictions"]) == (2 if name == "parameters" else 5)
    assert [key for key in found if key.startswith(f"{prefix}/results/inline/image.{MODEL}.")]
    assert not queues.dead()


def test_message_that_cannot_succeed_goes_to_the_dead_letters_with_the_reason(
    stack: Stack, s3: S3, queues: Queues, tmp_path: Path
) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    s3.put(f"{prefix}/broken.jpg", b"nothing")
    s3.put(f"{prefix}/large.jpg", b"x" * 2_000_000)
    put_images(s3, prefix, 1)
    bad = {
        "invalid_message": "rubbish",
        "invalid_image": pointer(prefix, "broken"),
        "payload_too_large": pointer(prefix, "large"),
        "image_not_found": pointer(prefix, "absent"),
        "model_not_found": pointer(prefix, "0") | {"model": "absent"},
        "invalid_request": pointer(prefix, "0", parameters={"modle": 1}),
    }
    both = [
        {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": f"{prefix}/{name}.jpg"}},
        }
        for name in ("absent", "0")
    ]
    queues.send(*bad.values(), {"Records": both})
    variables = {"WORKER_MODEL": MODEL, "WORKER_MAX_IMAGE_BYTES": "1000000"}
    with start_worker(s3, queues, url_of(stack), log, **variables):
        wait_until(lambda: is_served(queues), log=log)
    letters = queues.dead()
    assert len(letters) == len(bad) + 1
    dead = {attributes["nereid-error-code"]: body for body, attributes in letters if "Records" not in body}
    assert dead == {code: body if isinstance(body, str) else json.dumps(body) for code, body in bad.items()}
    assert all(attributes["nereid-error"] and attributes["nereid-message-id"] for _, attributes in letters)
    assert next(iter(results(s3, prefix))).startswith(f"{prefix}/0.jpg.")  # the other record of the event


def test_messages_that_are_delivered_twice_get_one_result(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    messages = put_images(s3, prefix, 10)
    queues.send(*messages * 3)
    with ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(start_worker(s3, queues, url_of(stack), log))
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 10)
    assert not queues.dead()


# What hangs when the worker is killed: which server, and what is in the path of its request.
STEPS = {"reading": ("s3", ".jpg"), "predicting": ("transformer", "/predict"), "writing": ("s3", ".json")}


@contextmanager
def proxies(stack: Stack, s3: S3) -> Iterator[tuple[dict[str, FaultyProxy], dict[str, str]]]:
    """A proxy in front of each server, and the variables of a worker that uses them."""
    urls = {"s3": s3.url, "sqs": s3.url, "transformer": url_of(stack)}
    with ExitStack() as opened:
        made = {name: opened.enter_context(FaultyProxy(url)) for name, url in urls.items()}
        variables = {"s3": "AWS_ENDPOINT_URL_S3", "sqs": "AWS_ENDPOINT_URL_SQS", "transformer": "WORKER_URL"}
        yield made, {variables[name]: proxy.url for name, proxy in made.items()}


@pytest.mark.parametrize("step", STEPS)
def test_message_of_a_worker_that_was_killed_is_another_one_s(
    stack: Stack, s3: S3, queues: Queues, tmp_path: Path, step: str
) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    server, word = STEPS[step]
    with (
        proxies(stack, s3) as (to, variables),
        start_worker(s3, queues, "", log, **VISIBILITY, **variables) as worker,
    ):
        to[server].hang(only=word)
        queues.send(*put_images(s3, prefix, 1))
        wait_until(lambda: any(word in each.path for each in to[server].requests), log=log)
        assert queues.count("NotVisible") == 1
        worker.process.kill()
        worker.process.wait()
    assert not results(s3, prefix)
    with start_worker(s3, queues, url_of(stack), log, **VISIBILITY):
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 1)
    assert not queues.dead()


def test_result_of_a_worker_that_was_killed_before_it_deleted_the_message_stays(
    stack: Stack, s3: S3, queues: Queues, tmp_path: Path
) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    with (
        proxies(stack, s3) as (to, variables),
        start_worker(s3, queues, "", log, **VISIBILITY, **variables) as worker,
    ):
        to["transformer"].slow(200, only="/predict")  # a second or two: the message is received by then
        queues.send(*put_images(s3, prefix, 1))
        wait_until(lambda: any("/predict" in each.path for each in to["transformer"].requests), log=log)
        to["sqs"].hang()
        to["transformer"].pass_all()
        wait_until(lambda: bool(results(s3, prefix)), log=log)
        assert queues.count("All") == 1
        worker.process.kill()
        worker.process.wait()
    with start_worker(s3, queues, url_of(stack), log, **VISIBILITY) as worker:
        wait_until(lambda: is_served(queues), log=log)
        metrics = httpx.get(f"http://127.0.0.1:{worker.port}/metrics", trust_env=False).text
    assert 'nereid_worker_results_total{result="duplicate"} 1.0' in metrics
    check_one_result_each(s3, prefix, 1)


@pytest.mark.parametrize("away", ["s3", "transformer"])
def test_server_that_is_away_costs_no_message_a_delivery(stack: Stack, s3: S3, tmp_path: Path, away: str) -> None:
    queues = create_queues(s3, tmp_path.name, most_receives=1)
    prefix, log = tmp_path.name, tmp_path / "log"
    with proxies(stack, s3) as (to, variables), start_worker(s3, queues, "", log, WORKER_SLOTS="4", **variables):
        wait_until(lambda: len(to["sqs"].requests) > 2, log=log)  # it receives
        to[away].close_port()
        queues.send(*put_images(s3, prefix, 6))
        wait_until(lambda: queues.count("NotVisible") == 4, log=log)
        time.sleep(2)
        assert (queues.count(), queues.count("NotVisible")) == (2, 4)
        to[away].pass_all()
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 6)
    assert not queues.dead()


def test_worker_waits_for_a_queue_that_is_away(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    with proxies(stack, s3) as (to, variables), start_worker(s3, queues, "", log, **VISIBILITY, **variables):
        wait_until(lambda: len(to["sqs"].requests) > 2, log=log)
        to["sqs"].close_port()  # what it delivers in that moment is lost, and delivered again
        queues.send(*put_images(s3, prefix, 6))
        time.sleep(2)
        to["sqs"].pass_all()
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 6)
    assert not queues.dead()


def test_message_in_progress_stays_hidden(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    (message,) = put_images(s3, prefix, 1)
    with FaultyProxy(url_of(stack)) as proxy, start_worker(s3, queues, proxy.url, log, **VISIBILITY):
        wait_until(lambda: bool(proxy.requests), log=log)  # it is ready
        proxy.close_port()
        queues.send(message)
        wait_until(lambda: queues.count("NotVisible") == 1, log=log)
        until = time.monotonic() + 6  # three times as long as it would be hidden
        while time.monotonic() < until:
            assert queues.count("NotVisible") == 1
            time.sleep(0.2)
        proxy.pass_all()
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 1)


def test_message_that_fails_again_and_again_ends_with_the_reason(stack: Stack, s3: S3, tmp_path: Path) -> None:
    queues = create_queues(s3, tmp_path.name, most_receives=1)
    prefix, log = tmp_path.name, tmp_path / "log"
    (message,) = put_images(s3, prefix, 1)
    with FaultyProxy(url_of(stack)) as proxy:
        # Of a proxy between: not the transformer's own, and it does not say to come again.
        proxy.status(500, only="/predict")
        with start_worker(s3, queues, proxy.url, log):
            queues.send(message)
            wait_until(lambda: is_served(queues), log=log)
    ((body, attributes),) = queues.dead()
    assert json.loads(body) == message
    assert attributes["nereid-error-code"] == "failed"
    assert "delivered 1 times" in attributes["nereid-error"]
    assert "500" in attributes["nereid-error"]
    assert not results(s3, prefix)


def test_rejection_by_a_proxy_between_concerns_the_message_or_the_server(stack: Stack, s3: S3, tmp_path: Path) -> None:
    queues = create_queues(s3, tmp_path.name, most_receives=1)
    prefix, log = tmp_path.name, tmp_path / "log"
    first, second = put_images(s3, prefix, 2)
    with FaultyProxy(url_of(stack)) as proxy, start_worker(s3, queues, proxy.url, log, WORKER_SLOTS="1"):
        proxy.status(413, only="/predict")
        queues.send(first)
        wait_until(lambda: is_served(queues), log=log)
        proxy.status(503, only="/predict")
        queues.send(second)
        wait_until(lambda: "503" in log.read_text(), log=log)
        proxy.pass_all()
        wait_until(lambda: is_served(queues), log=log)
    ((body, attributes),) = queues.dead()
    assert json.loads(body) == first
    assert attributes["nereid-error-code"] == "http_413"
    assert [key for key in results(s3, prefix) if key.startswith(f"{prefix}/1.jpg.")]


def test_image_that_breaks_off_is_read_again(stack: Stack, s3: S3, tmp_path: Path) -> None:
    queues = create_queues(s3, tmp_path.name, most_receives=1)
    prefix, log = tmp_path.name, tmp_path / "log"
    with proxies(stack, s3) as (to, variables), start_worker(s3, queues, "", log, **variables):
        to["s3"].reset(1000, only=".jpg")
        queues.send(*put_images(s3, prefix, 1))
        wait_until(lambda: "tried again" in log.read_text(), log=log)
        to["s3"].pass_all()
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 1)
    assert not queues.dead()


def test_sigterm_finishes_what_is_in_progress(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    queues.send(*put_images(s3, prefix, 60))
    with start_worker(s3, queues, url_of(stack), log, WORKER_SLOTS="4") as worker:
        wait_until(lambda: len(results(s3, prefix)) > 3, log=log)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE_S) == 0
    done = len(results(s3, prefix))
    assert queues.count() == 60 - done > 0
    assert not queues.count("NotVisible")
    with start_worker(s3, queues, url_of(stack), log):
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 60)


def test_sigterm_gives_back_what_cannot_be_finished(stack: Stack, s3: S3, queues: Queues, tmp_path: Path) -> None:
    prefix, log = tmp_path.name, tmp_path / "log"
    messages = put_images(s3, prefix, 4)
    slots = {"WORKER_SLOTS": "4", "WORKER_GRACE_S": "1"}
    with FaultyProxy(url_of(stack)) as proxy, start_worker(s3, queues, proxy.url, log, **slots) as worker:
        wait_until(lambda: bool(proxy.requests), log=log)
        proxy.hang(only="/predict")
        queues.send(*messages)
        wait_until(lambda: sum("/predict" in each.path for each in proxy.requests) == 4, log=log)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE_S) == 0
    assert queues.count() == 4
    with start_worker(s3, queues, url_of(stack), log):
        wait_until(lambda: is_served(queues), log=log)
    check_one_result_each(s3, prefix, 4)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORKER_QUEUE_URL": ""}, "WORKER_QUEUE_URL is not set; expected: URL of the SQS queue"),
        ({"WORKER_QUEUE_URL": "http://127.0.0.1:9/1/queue.fifo"}, "expected a standard queue"),
        ({"WORKER_DEAD_LETTER_URL": "http://127.0.0.1:9/1/dead.fifo"}, "WORKER_DEAD_LETTER_URL: "),
        ({"WORKER_SLOTS": "0"}, "WORKER_SLOTS: got '0'"),
        ({"WORKER_RESULTS": "bucket"}, "WORKER_RESULTS: got 'bucket'"),
        ({"WORKER_PARAMETERS": "confidence=1"}, "parameters"),
        ({"NEREID_API_KEY": "a b"}, "NEREID_API_KEY"),
        ({"AWS_ENDPOINT_URL": "localhost:9"}, "Invalid endpoint: localhost:9"),
        ({"WORKER_URL": "http://[::1"}, "Invalid"),
        ({"AWS_ACCESS_KEY_ID": ""}, "no credentials; next: export AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_setting_is_named(s3: S3, queues: Queues, tmp_path: Path, variables: dict[str, str], words: str) -> None:
    log = tmp_path / "log"
    with start_worker(s3, queues, "http://127.0.0.1:9", log, **variables) as worker:
        assert worker.process.wait(PATIENCE_S) == 2
    assert words in log.read_text()


def test_queue_without_dead_letters_is_rejected(s3: S3, queues: Queues, tmp_path: Path) -> None:
    log = tmp_path / "log"
    alone = queues.sqs.create_queue(QueueName=f"{tmp_path.name}-alone")["QueueUrl"]
    for url, words in ((alone, "has no dead-letter queue"), (f"{queues.url}-absent", "does not exist")):
        with start_worker(s3, queues, "http://127.0.0.1:9", log, WORKER_QUEUE_URL=url) as worker:
            assert worker.process.wait(PATIENCE_S) == 2
        assert words in log.read_text()
