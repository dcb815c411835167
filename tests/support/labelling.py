"""What the tests of labelling tools share: their environments, images, and processes that respond."""

import io
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.processes import ended
from tests.support.stack import PATIENCE_S, ROOT, Stack, wait_until

DIGITS = ROOT / "loadtest/pictures/digits.jpg"
TILTED = ROOT / "loadtest/pictures/tilted-digits.jpg"
# Each task with a shipped model of it, and an image that shows something to it.
TASKS = {
    "detect": ("digit-finder", DIGITS),
    "segment": ("digit-outlines", DIGITS),
    "pose": ("digit-strokes", DIGITS),
    "obb": ("tilted-digits", TILTED),
    "classify": ("digit-classes", ROOT / "loadtest/pictures/middle-two.jpg"),
}
# The place of the orientation in EXIF, and its value for "turn me by 90 degrees clockwise".
_ORIENTATION, _TURNED = 0x0112, 6


def environment_of(tool: str) -> Path:
    """The folder of programs of a tool's environment."""
    programs = ROOT / f".venv-labelling-{tool}" / "bin"
    if not (programs.parent / ".installed").exists():
        pytest.skip(f"{programs.parent.name} is missing; next: make test-labelling")
    return programs


def turned(image_file: Path) -> bytes:
    """The image without its lowest quarter, stored on its side, with the EXIF orientation that puts it upright."""
    with Image.open(image_file) as whole:
        upright = whole.convert("RGB").crop((0, 0, whole.width, whole.height * 3 // 4))
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED
    encoded = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(encoded, "JPEG", quality=95, exif=exif)
    return encoded.getvalue()


def blank() -> bytes:
    """A grey image without an object."""
    encoded = io.BytesIO()
    Image.new("RGB", (160, 120), (127, 127, 127)).save(encoded, "PNG")
    return encoded.getvalue()


def predicted(stack: Stack, model: str, image: bytes, **parameters: str | float) -> dict[str, Any]:
    """What `/predict` itself responds."""
    headers = {"Content-Type": "application/octet-stream"}
    response = stack.http.post(f"/predict/{model}", params=parameters, content=image, headers=headers)
    assert response.status_code == httpx.codes.OK, response.text
    body: dict[str, Any] = response.json()
    return body


def url_of(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.http_port}"


@contextmanager
def serving(
    argv: Sequence[str], url: str, log: Path, environment: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program, from the time when a URL responds with 200 until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=output, **options)
    with ended(process, patience_s=PATIENCE_S):
        wait_until(lambda: process.poll() is not None or responds(url), log=log)
        assert process.poll() is None, log.read_text()
        yield process


def responds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
