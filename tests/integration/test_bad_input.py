"""What a client can get wrong: a 4xx that says why, and the server goes on."""

import gzip
import io
import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.stack import ROOT, Stack, wait_until

SEVEN = (ROOT / "loadtest" / "pictures" / "seven.png").read_bytes()
JSON = {"Content-Type": "application/json"}
JPEG = {"Content-Type": "image/jpeg"}

# Of ../shared/data/hard: the status, and the size after EXIF of a picture that is fine, or part of the message.
HARD: dict[str, tuple[int, Any]] = {
    "apng_mode_16bit.png": (200, (128, 64)),
    "bomb_header_65535x65535_rgb.png": (413, "65535x65535 pixels is over the limit of 50000000"),
    "broken.png": (400, "image: 80 bytes"),
    "bus_cmyk.jpg": (200, (810, 1080)),
    "bus_exif6.jpg": (200, (810, 1080)),
    "bus_gray.png": (200, (810, 1080)),
    "bus_named_jpg_but_png.jpg": (200, (810, 1080)),
    "bus_progressive.jpg": (200, (810, 1080)),
    "bus_rgba.png": (200, (405, 540)),
    "bus_truncated.jpg": (400, "ends before its last row"),
    "decompression_bomb.gif": (413, "65535x66601 pixels is over the limit"),
    "empty.jpg": (400, "0 bytes"),
    "exif_Landscape_1.jpg": (200, (1800, 1200)),
    "exif_Landscape_6.jpg": (200, (1800, 1200)),
    "exif_Portrait_3.jpg": (200, (1200, 1800)),
    "flower.webp": (200, (480, 360)),
    "hopper.avif": (200, (128, 128)),
    "hopper_bad_exif.jpg": (200, (500, 500)),
    "hopper_gray.jpg": (200, (128, 128)),
    "hopper_orientation_6.jpg": (200, (128, 128)),
    "iss634.gif": (200, (245, 245)),
    "one_pixel.png": (200, (1, 1)),
    "pil123rgba.png": (200, (162, 150)),
    "pil_sample_cmyk.jpg": (200, (100, 100)),
    "text.jpg": (400, "expected one of JPEG"),
    "tiff_16bit_RGB_target.png": (200, (100, 40)),
    "transparent.webp": (200, (200, 150)),
    "truncated_image.png": (400, "broken PNG"),
    "truncated_jpeg.jpg": (400, "ends before its last row"),
    "uncompressed_la.png": (200, (128, 128)),
}


@pytest.fixture(autouse=True)
def _goes_on(stack: Stack) -> Any:
    """After every test here the next good request is answered by the same processes."""
    yield
    reply = stack.http.post("/predict/digits", files={"image": SEVEN})
    assert reply.json()["top"] == "7"
    assert not re.search("exited: (triton|transformer)", stack.log.read_text(errors="replace"))


@pytest.mark.parametrize("model", ["digit-finder", "digits"])
@pytest.mark.parametrize("name", HARD)
def test_hard_picture_gets_an_answer_or_the_reason(stack: Stack, shared: Path, model: str, name: str) -> None:
    status, says = HARD[name]
    response = stack.http.post(f"/predict/{model}", files={"image": (shared / "hard" / name).read_bytes()})
    assert response.status_code == status, response.text
    if status == 200:
        assert (response.json()["image"]["width"], response.json()["image"]["height"]) == says
    else:
        assert says in response.json()["error"]


def test_every_hard_picture_is_in_the_table(shared: Path) -> None:
    assert {path.name for path in (shared / "hard").iterdir()} - {"README.md"} == set(HARD)


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "says"),
    [
        ("POST", "/predict/digits", {}, 400, "got 0 bytes, expected image"),
        ("POST", "/predict/digits", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "'text/plain'"),
        ("POST", "/predict/digits", {"content": b"x"}, 415, "got 'none', expected image"),
        ("POST", "/predict/digits", {"content": b"x", "headers": JPEG}, 400, "1 bytes"),
        ("POST", "/predict/digits", {"files": {"picture": SEVEN}}, 400, "got fields 'picture'"),
        ("POST", "/predict/digits", {"files": {"image": b""}}, 400, "0 bytes"),
        ("POST", "/predict/digits", {"files": [("image", SEVEN), ("image", b"no")]}, 400, "2 bytes"),
        ("POST", "/predict/digits", {"json": [1, 2]}, 400, "digits is a model for pictures (classify): got rows"),
        ("POST", "/predict/iris", {"files": {"image": SEVEN}}, 400, "iris is a model for rows"),
        ("POST", "/predict/iris", {"content": b"{", "headers": JSON}, 400, "broken JSON"),
        ("POST", "/predict/iris", {"content": b"\xff\xfe", "headers": JSON}, 400, "broken JSON"),
        ("POST", "/predict/iris", {"json": [1, 2]}, 400, "got 2 values, expected 4: sepal length"),
        ("POST", "/predict/iris", {"json": [[1, 2, 3, "4"]]}, 400, "row 0, column 3: got '4'"),
        ("POST", "/predict/iris", {"json": {"a": 1}}, 400, "unknown ['a']"),
        ("POST", "/predict/iris", {"json": [[1, 2, 3, 4]] * 1025}, 413, "got 1025 pictures or rows"),
        ("POST", "/predict/nothing", {"files": {"image": SEVEN}}, 404, "model 'nothing' is unknown"),
        ("POST", "/predict/..%2f..%2fetc", {"files": {"image": SEVEN}}, 404, "error"),
        ("POST", "/predict/digits?what=1", {"files": {"image": SEVEN}}, 400, "'what' is unknown; expected none"),
        ("POST", "/predict/digit-finder?conf=1", {"files": {"image": SEVEN}}, 400, "'conf' is unknown"),
        ("POST", "/predict/digit-finder?confidence=2", {"files": {"image": SEVEN}}, 400, "number from 0 to 1"),
        ("POST", "/predict/digit-finder?confidence=nan", {"files": {"image": SEVEN}}, 400, "number from 0 to 1"),
        ("POST", "/predict/digit-finder?iou=x", {"files": {"image": SEVEN}}, 400, "got 'x'"),
        ("POST", "/predict/digit-finder?iou=0.5&iou=0.6", {"files": {"image": SEVEN}}, 400, "got it twice"),
        ("POST", "/predict/digit-finder?classes=cat", {"files": {"image": SEVEN}}, 400, "has no class 'cat'"),
        ("POST", "/predict/digit-finder?max_detections=0", {"files": {"image": SEVEN}}, 400, "from 1 to 1000"),
        ("POST", "/v1/models/digits:predict", {"content": b"", "headers": JSON}, 400, "broken JSON"),
        ("POST", "/v1/models/digits:predict", {"json": {"instances": [{"image": {"b64": "%"}}]}}, 400, "base64"),
        ("POST", "/v1/models/digits:predict", {"json": {"instances": []}}, 400, "got none"),
        ("POST", "/v1/models/nothing:predict", {"json": {"instances": [[1]]}}, 404, "unknown"),
        ("GET", "/predict/digits", {}, 405, "GET is not allowed here"),
        ("GET", "/v2/models/nothing", {}, 404, "model 'nothing' is unknown"),
        ("GET", "/nowhere", {}, 404, "no route /nowhere"),
    ],
)
def test_mistake_is_named(
    stack: Stack, method: str, path: str, request_: dict[str, Any], status: int, says: str
) -> None:
    response = stack.http.request(method, path, **request_)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert says in response.text.replace('\\"', '"')


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_compression_is_refused(stack: Stack, encoding: str) -> None:
    response = stack.http.post("/predict/digits", content=SEVEN, headers=JPEG | {"Content-Encoding": encoding})
    assert (response.status_code, "Content-Encoding" in response.json()["error"]) == (415, True)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (SEVEN, 400, "broken gzip"),
        (gzip.compress(SEVEN)[:-9], 400, "broken gzip"),
        (gzip.compress(SEVEN)[:-9] + bytes(9), 400, "broken gzip"),
        (gzip.compress(SEVEN) + b"more", 400, "broken gzip"),
        (gzip.compress(bytes(64 * 2**20 + 1)), 413, "unpacked it is more than the limit of 67108864 bytes"),
    ],
)
def test_broken_gzip_and_bombs_are_refused(stack: Stack, body: bytes, status: int, says: str) -> None:
    response = stack.http.post("/predict/digits", content=body, headers=JPEG | {"Content-Encoding": "gzip"})
    assert (response.status_code, says in response.json()["error"]) == (status, True), response.text


def test_picture_over_the_byte_limit_is_refused(stack: Stack) -> None:
    response = stack.http.post("/predict/digits", content=SEVEN + bytes(20 * 2**20), headers=JPEG)
    assert response.status_code == 413
    assert response.json()["error"].endswith("is over the limit of 20971520")


def test_body_over_the_limit_is_refused_also_without_a_length(stack: Stack) -> None:
    def chunks() -> Any:
        for _ in range(80):
            yield bytes(2**20)

    response = stack.http.post("/predict/digits", content=chunks(), headers=JPEG)
    assert response.status_code == 413
    assert "more than the limit of 67108864 bytes" in response.json()["error"]


def test_picture_over_the_pixel_limit_is_refused_before_decoding(stack: Stack) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((5001, 10_000), np.uint8)).save(buffer, "PNG")
    response = stack.http.post("/predict/digits", files={"image": buffer.getvalue()})
    assert (response.status_code, response.json()["error"]) == (
        413,
        "image: 10000x5001 pixels is over the limit of 50000000",
    )


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("image/jpeg", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png, application/json", "image/png"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("application/json;q=0.1, image/png;q=0.2", "image/png"),
        ("image/jpeg;q=0", "application/json"),
    ],
)
def test_accept_is_weighed(stack: Stack, accept: str, answered: str) -> None:
    response = stack.http.post("/predict/digits", files={"image": SEVEN}, headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, answered)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"files": [("image", SEVEN), ("image", SEVEN)]}, "got 2 pictures, expected one picture"),
        ({"json": [1, 2, 3, 4]}, "got rows, expected one picture"),
    ],
)
def test_accept_of_a_picture_wants_one_picture(stack: Stack, request_: dict[str, Any], says: str) -> None:
    response = stack.http.post("/predict/digits", headers={"Accept": "image/png"}, **request_)
    assert (response.status_code, says in response.json()["error"]) == (400, True)


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 1999), (1, 65535), (30_000, 3), (7000, 7000)])
@pytest.mark.parametrize("model", ["digits", "digit-finder"])
def test_odd_shapes_are_answered_and_drawn(stack: Stack, model: str, size_wh: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("1", size_wh).save(buffer, "PNG")
    for accept in ("application/json", "image/png", "image/jpeg"):
        response = stack.http.post(f"/predict/{model}", files={"image": buffer.getvalue()}, headers={"Accept": accept})
        too_long = accept == "image/jpeg" and max(size_wh) > 65500
        assert response.status_code == (413 if too_long else 200), response.text[:300]


def test_many_large_pictures_do_not_fill_the_memory(stack: Stack) -> None:
    buffer = io.BytesIO()
    Image.new("1", (7000, 7000)).save(buffer, "PNG")  # 6 kB, 147 MB decoded
    response = stack.http.post("/predict/digits", files=[("image", buffer.getvalue())] * 24, timeout=120)
    assert response.status_code == 200
    transformer = stack.part("transformer")
    peak = next(
        int(line.split()[1]) / 1024
        for line in Path(f"/proc/{transformer.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    # Four at once at 2 cores, each the picture and a grey copy; 24 at once would be more than 3.5 GB.
    assert peak < 450 * max(os.cpu_count() or 1, 2) * 2


def test_error_of_one_picture_of_many_names_it(stack: Stack) -> None:
    response = stack.http.post("/predict/digits", files=[("image", SEVEN), ("image", b"no picture")])
    assert response.json()["error"].startswith("picture 1 of 2: image: 10 bytes")


def test_long_message_is_cut_and_a_log_line_stays_one_line(stack: Stack) -> None:
    response = stack.http.post("/predict/iris", json={"k" * 100_000: 1})
    assert response.status_code == 400
    assert len(response.content) < 1000
    stack.http.get("/x%0aINJECTED LINE")
    assert not [line for line in stack.log.read_text(errors="replace").splitlines() if line.startswith("INJECTED")]


def test_client_that_goes_away_is_no_failure_of_ours(stack: Stack) -> None:
    port = stack.http.base_url.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /predict/digits HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    wait_until(lambda: "the client went away" in stack.log.read_text(errors="replace"), seconds=5, log=stack.log)
    assert "Traceback" not in stack.log.read_text(errors="replace")


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_may_ask_by_head(stack: Stack, path: str) -> None:
    assert stack.http.head(path).status_code == 200


def test_docs_come_from_this_server_alone(stack: Stack) -> None:
    page = stack.http.get("/docs").text
    assert not re.findall(r'(?:src|href)="https?://', page)
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert stack.http.get(path).status_code == 200
