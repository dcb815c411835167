"""integrations/label_studio, connected to a real Label Studio: what its API returns is what `/predict` said."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.support.labelling import (
    DIGITS,
    TASKS,
    blank,
    environment_of,
    predicted,
    responds,
    serving,
    turned,
    url_of,
)
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOKEN = "0123456789abcdef0123456789abcdef01234567"
DIGIT_LABELS = "".join(f'<Label value="{digit}"/>' for digit in "013456789")
# 2 has another name in each project; 7 an alias, which stands in results.
LABELS = (
    DIGIT_LABELS.replace('value="7"', 'value="seven" alias="7"') + '<Label value="two" predicted_values="zwei, 2"/>'
)
CONFIGS = {
    "detect": f'<RectangleLabels name="it" toName="img">{LABELS}</RectangleLabels>',
    "segment": f'<PolygonLabels name="it" toName="img">{LABELS}</PolygonLabels>',
    "brush": f'<BrushLabels name="it" toName="img">{LABELS}</BrushLabels>',
    "pose": f'<RectangleLabels name="it" toName="img">{LABELS}</RectangleLabels>'
    '<KeyPointLabels name="points" toName="img">'
    '<Label value="upper end"/><Label value="Lower End"/></KeyPointLabels>',
    "obb": f'<RectangleLabels name="it" toName="img">{LABELS}</RectangleLabels>',
    "classify": f'<Choices name="it" toName="img">{LABELS.replace("<Label", "<Choice")}</Choices>',
}
MODELS = {task: TASKS[{"brush": "segment"}.get(task, task)] for task in CONFIGS}


@dataclass(frozen=True)
class LabelStudio:
    """A server of Label Studio.

    Attributes:
        http: client of its API, as its only user.
        url: where it listens.
        log: its output.
    """

    http: httpx.Client
    url: str
    log: Path

    def project(self, config: str) -> int:
        body = {"title": "digits", "label_config": f'<View><Image name="img" value="$image"/>{config}</View>'}
        response = self.http.post("/api/projects", json=body)
        assert response.status_code == httpx.codes.CREATED, response.text
        return int(response.json()["id"])

    def upload(self, project: int, name: str, image: bytes) -> None:
        response = self.http.post(f"/api/projects/{project}/import", files={"file": (name, image)})
        assert response.status_code == httpx.codes.CREATED, response.text

    def connect(self, project: int, backend: str, **how: str) -> dict[str, Any]:
        response = self.http.post("/api/ml", json={"url": backend, "project": project, "title": "nereid"} | how)
        body: dict[str, Any] = response.json()
        return body | {"http": response.status_code}

    def predictions(self, project: int) -> list[dict[str, Any]]:
        """Retrieve predictions of all tasks; the tasks, in the order of their import, each with what is stored."""
        action: dict[str, str | int] = {"id": "retrieve_tasks_predictions", "project": project}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        self.http.post("/api/dm/actions", params=action, json=everything).raise_for_status()
        tasks = self.http.get("/api/tasks", params={"project": project, "fields": "all"}).json()["tasks"]
        stored = [self.http.get("/api/predictions", params={"task": task["id"]}).json() for task in tasks]
        return [
            task | {"stored": each}
            for task, each in sorted(zip(tasks, stored, strict=True), key=lambda pair: pair[0]["id"])
        ]


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    programs = environment_of("label-studio")
    folder = tmp_path_factory.mktemp("label-studio")
    (port,) = find_free_ports(1)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | {
        "HOME": str(folder),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # As docs/labelling.md says for a backend on the same machine.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    argv = [
        str(programs / "label-studio"),
        "start",
        "--no-browser",
        "--data-dir",
        str(folder / "data"),
        "--port",
        str(port),
    ]
    argv += [
        "--internal-host",
        "127.0.0.1",
        "--username",
        "a@example.com",
        "--password",
        "pass-word-1",
        "--user-token",
        TOKEN,
    ]
    url = f"http://127.0.0.1:{port}"
    with serving(argv, f"{url}/health", folder / "log", environment):
        headers = {"Authorization": f"Token {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            yield LabelStudio(client, url, folder / "log")


@contextmanager
def backend(nereid: str, model: str, folder: Path, *options: str, **environment: str) -> Iterator[tuple[str, Path]]:
    """The backend as a user starts it: its URL and its log."""
    port = environment.pop("port", "") or str(find_free_ports(1)[0])
    argv = [sys.executable, "-m", "integrations.label_studio", "--model", model, "--url", nereid, "--port", port]
    url, log = f"http://127.0.0.1:{port}", folder / "backend.log"
    whole = os.environ | {"PYTHONPATH": str(ROOT), "LABEL_STUDIO_API_KEY": TOKEN} | environment
    ready = (
        f"http://{environment['BASIC_AUTH_USER']}:{environment['BASIC_AUTH_PASS']}@127.0.0.1:{port}"
        if environment.get("BASIC_AUTH_USER")
        else url
    )
    with serving([*argv, *options], f"{ready}/health", log, whole):
        yield url, log


def label(name: str) -> str:
    return {"2": "two", "upper end": "upper end", "lower end": "Lower End"}.get(name, name)


def percent(point: dict[str, float], size: dict[str, int]) -> tuple[float, float]:
    return point["x"] / size["width"] * 100, point["y"] / size["height"] * 100


def expected_values(task: str, response: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of the regions of an image, computed from the response of `/predict` by other formulas."""
    size, found = response["image"], response["predictions"]
    if task == "classify":
        return [{"choices": [label(response["top"])]}]
    values: list[dict[str, Any]] = []
    for each in found:
        box = each["box"]
        x, y = percent({"x": box["x1"], "y": box["y1"]}, size)
        width, height = percent({"x": each["width"], "y": each["height"]}, size)
        name = label(each["class"])
        rectangle = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [name]}
        if task == "detect":
            values.append(rectangle)
        elif task == "segment":
            parts = each.get("parts") or [each["points"]]
            values += [
                {"points": [list(percent(point, size)) for point in part], "polygonlabels": [name]} for part in parts
            ]
        elif task == "pose":
            values.append(rectangle)
            for point in each["keypoints"]:
                x, y = percent(point, size)
                values.append({"x": x, "y": y, "width": 0.5, "keypointlabels": [label(point["class"])]})
    return values


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            assert got[name] == value
        else:
            # A thousandth of a pixel of 320: `/predict` rounds to it.
            np.testing.assert_allclose(got[name], value, atol=0.0005, err_msg=name)


@pytest.mark.parametrize("task", [task for task in CONFIGS if task not in ("brush", "obb")])
def test_regions_of_label_studio_are_those_of_predict(
    task: str, label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    model, image_file = MODELS[task]
    images = {"a.jpg": image_file.read_bytes(), "b.jpg": turned(image_file), "c.png": blank()}
    project = label_studio.project(CONFIGS[task])
    for name, image in images.items():
        label_studio.upload(project, name, image)
    with backend(url_of(stack), model, tmp_path, LABEL_STUDIO_URL=label_studio.url) as (url, _):
        connected = label_studio.connect(project, url)
        assert (connected["http"], connected["state"]) == (httpx.codes.CREATED, "CO"), connected
        tasks = label_studio.predictions(project)
    assert len(tasks) == len(images)
    for task_of, image in zip(tasks, images.values(), strict=True):
        response = predicted(stack, model, image)
        (stored,) = task_of["stored"]
        assert stored["model_version"] == f"{model}/{response['model']['version']}"
        expected = expected_values(task, response)
        assert len(stored["result"]) == len(expected)
        for region, value in zip(stored["result"], expected, strict=True):
            assert (region["original_width"], region["original_height"]) == (
                response["image"]["width"],
                response["image"]["height"],
            )
            assert_same(region["value"], value)
        if task != "classify":
            assert bool(expected) == (image is not images["c.png"])
    if task == "pose":
        first = tasks[0]["stored"][0]["result"]
        assert [region.get("parentID") for region in first[:3]] == [None, first[0]["id"], first[0]["id"]]


def test_rotated_rectangles_have_the_corners_of_predict(
    label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    model, image_file = MODELS["obb"]
    project = label_studio.project(CONFIGS["obb"])
    images = [image_file.read_bytes(), turned(image_file)]
    for image in images:
        label_studio.upload(project, "a.jpg", image)
    with backend(url_of(stack), model, tmp_path, LABEL_STUDIO_URL=label_studio.url) as (url, _):
        label_studio.connect(project, url)
        tasks = label_studio.predictions(project)
    for task, image in zip(tasks, images, strict=True):
        response = predicted(stack, model, image)
        assert response["predictions"]
        size = response["image"]
        for region, found in zip(task["stored"][0]["result"], response["predictions"], strict=True):
            value = region["value"]
            # As Label Studio's editor draws it: sizes along the sides, turned about the corner at x, y.
            x, y = value["x"] * size["width"] / 100, value["y"] * size["height"] / 100
            width, height = value["width"] * size["width"] / 100, value["height"] * size["height"] / 100
            angle = math.radians(value["rotation"])
            along = np.array([math.cos(angle), math.sin(angle)]) * width
            down = np.array([-math.sin(angle), math.cos(angle)]) * height
            drawn = np.array([x, y]) + np.array([0 * along, along, along + down, down])
            corners = np.array([[corner["x"], corner["y"]] for corner in found["corners"]])
            distances = np.linalg.norm(drawn[:, None] - corners[None], axis=2)
            assert distances.min(axis=1).max() < 0.01, (drawn, corners)
            assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3]


READ_BRUSH = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
given = json.load(sys.stdin)
interface = LabelInterface(given["config"])
for prediction in given["predictions"]:
    errors = interface.validate_prediction(prediction, return_errors=True)
    assert not errors, errors
masks = [decode_rle(rle).reshape(given["shape"] + [4]) for rle in given["masks"]]
assert all((mask == mask[..., :1]).all() and set(np.unique(mask)) <= {0, 255} for mask in masks)
print(json.dumps([np.flatnonzero(mask[..., 3]).tolist() for mask in masks]))
"""


def test_brushes_are_the_masks_of_predict_for_label_studios_own_reader(
    label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    model, image_file = MODELS["brush"]
    project = label_studio.project(CONFIGS["brush"])
    label_studio.upload(project, "a.jpg", turned(image_file))
    with backend(url_of(stack), model, tmp_path, LABEL_STUDIO_URL=label_studio.url) as (url, _):
        label_studio.connect(project, url)
        (task,) = label_studio.predictions(project)
    response = predicted(stack, model, turned(image_file), mask="rle")
    (stored,) = task["stored"]
    given = {
        "config": f'<View><Image name="img" value="$image"/>{CONFIGS["brush"]}</View>',
        "predictions": [
            {"result": stored["result"], "score": stored["score"], "model_version": stored["model_version"]}
        ],
        "masks": [region["value"]["rle"] for region in stored["result"]],
        "shape": [response["image"]["height"], response["image"]["width"]],
    }
    done = subprocess.run(
        [environment_of("label-studio") / "python", "-c", READ_BRUSH],
        input=json.dumps(given), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pixels = [np.flatnonzero(coco_mask.decode(found["rle"])).tolist() for found in response["predictions"]]
    assert len(pixels) > 1
    assert json.loads(done.stdout) == pixels


def test_personal_access_token_fetches_files_too(label_studio: LabelStudio, stack: Stack, tmp_path: Path) -> None:
    project = label_studio.project(CONFIGS["detect"])
    label_studio.upload(project, "a.jpg", DIGITS.read_bytes())
    made = label_studio.http.post("/api/token/", json={})
    assert made.status_code == httpx.codes.CREATED, made.text
    key = made.json()["token"]
    with backend(
        url_of(stack), "digit-finder", tmp_path, LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=key
    ) as (url, log):
        label_studio.connect(project, url)
        (task,) = label_studio.predictions(project)
        assert len(task["stored"]) == 1, log.read_text()
    assert len(task["stored"][0]["result"]) == len(predicted(stack, "digit-finder", DIGITS.read_bytes())["predictions"])


def test_task_whose_image_is_not_fetched_has_no_prediction_and_the_others_have(
    label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    project = label_studio.project(CONFIGS["detect"])
    secret = f"{url_of(stack)}/v2/models"
    addresses = [
        secret,
        "/api/users/",
        "file:///etc/passwd",
        "//127.0.0.1/x.png",
        "s3://bucket/none.jpg",
        "",
        "/data/../api/users/",
    ]
    label_studio.http.post(
        f"/api/projects/{project}/import", json=[{"data": {"image": each or "-"}} for each in addresses]
    ).raise_for_status()
    label_studio.upload(project, "a.jpg", DIGITS.read_bytes())
    label_studio.upload(project, "broken.jpg", b"\xff\xd8\xff no image")
    with backend(url_of(stack), "digit-finder", tmp_path, LABEL_STUDIO_URL=label_studio.url) as (url, log):
        label_studio.connect(project, url)
        tasks = label_studio.predictions(project)
        words = log.read_text()
    assert [len(task["stored"]) for task in tasks] == [0] * len(addresses) + [1, 0], words
    assert "127.0.0.1: no image is fetched from there; next: --image-hosts 127.0.0.1" in words
    assert "/api/users/: no path of an image in Label Studio" in words
    assert "file:///etc/passwd: expected http" in words


def test_images_come_from_the_hosts_that_were_named(label_studio: LabelStudio, stack: Stack, tmp_path: Path) -> None:
    project = label_studio.project(CONFIGS["detect"])
    (port,) = find_free_ports(1)
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(DIGITS.parent)]
    address = f"http://127.0.0.1:{port}/digits.jpg"
    label_studio.http.post(f"/api/projects/{project}/import", json=[{"data": {"image": address}}]).raise_for_status()
    options = ("--image-hosts", "127.0.0.1")
    with (
        serving(argv, address, tmp_path / "files.log", dict(os.environ)),
        backend(url_of(stack), "digit-finder", tmp_path, *options, LABEL_STUDIO_URL=label_studio.url) as (url, log),
    ):
        label_studio.connect(project, url)
        (task,) = label_studio.predictions(project)
        assert len(task["stored"]) == 1, log.read_text()


def test_unreachable_nereid_is_an_error_of_the_backend_and_stores_nothing(
    label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    project = label_studio.project(CONFIGS["detect"])
    label_studio.upload(project, "a.jpg", DIGITS.read_bytes())
    mine, away = find_free_ports(2)
    reach = {"LABEL_STUDIO_URL": label_studio.url, "port": str(mine)}
    with backend(url_of(stack), "digit-finder", tmp_path, **reach) as (url, _):
        assert label_studio.connect(project, url)["state"] == "CO"
    with backend(f"http://127.0.0.1:{away}", "digit-finder", tmp_path, **reach) as (url, log):
        (task,) = label_studio.predictions(project)
        other = label_studio.connect(label_studio.project(CONFIGS["detect"]), url)
        body = httpx.post(f"{url}/predict", json={"tasks": [], "label_config": ""}, trust_env=False)
        (connection,) = label_studio.http.get("/api/ml", params={"project": project}).json()
        words = log.read_text()
    assert task["stored"] == []
    assert connection["state"] == "ER"
    assert other["http"] == httpx.codes.BAD_REQUEST
    assert body.status_code == httpx.codes.BAD_GATEWAY
    assert f"no server at http://127.0.0.1:{away}" in body.json()["error"]
    assert f"no server at http://127.0.0.1:{away}" in words


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('<Choices name="it" toName="img"><Choice value="2"/></Choices>', "has no RectangleLabels of an <Image>"),
        (
            '<RectangleLabels name="it" toName="img"><Label value="car"/></RectangleLabels>',
            "no label of the labelling config",
        ),
        ("<RectangleLabels", "is not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View/>', "has a DOCTYPE"),
    ],
)
def test_config_that_cannot_show_the_model_is_rejected_in_words(
    config: str, words: str, stack: Stack, tmp_path: Path
) -> None:
    whole = config if config.startswith("<!") else f'<View><Image name="img" value="$image"/>{config}</View>'
    with backend(url_of(stack), "digit-finder", tmp_path) as (url, _):
        response = httpx.post(f"{url}/setup", json={"project": "1.1", "schema": whole}, trust_env=False)
    assert response.status_code == httpx.codes.BAD_REQUEST
    assert words in response.json()["error"]


def test_backend_requires_basic_authentication_where_it_is_set(
    label_studio: LabelStudio, stack: Stack, tmp_path: Path
) -> None:
    project = label_studio.project(CONFIGS["detect"])
    label_studio.upload(project, "a.jpg", DIGITS.read_bytes())
    basic = {"basic_auth_user": "ls", "basic_auth_pass": "pass"}
    secret = {name.upper(): value for name, value in basic.items()}
    with backend(url_of(stack), "digit-finder", tmp_path, LABEL_STUDIO_URL=label_studio.url, **secret) as (url, log):
        assert not responds(f"{url}/health")
        assert not responds(f"{url}/health".replace("//", "//ls:wrong@"))
        label_studio.connect(project, url, auth_method="BASIC_AUTH", **basic)
        (task,) = label_studio.predictions(project)
        wait_until(lambda: "POST /predict" in log.read_text(), log=log)
    assert len(task["stored"]) == 1
