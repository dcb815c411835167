"""What stands in for CVAT's server, which cannot be installed here: as much of its REST API as cvat-cli needs.

Not CVAT: it stores what it is sent, and verifies nothing. What verifies and maps annotations is the real cvat-sdk.
"""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageOps

TASK = 7
_DATE = "2026-11-28T00:00:00Z"


@dataclass
class Server:
    """The stand-in.

    Attributes:
        images: the frames of its only task, by name.
        labels: of the task.
        url: where it listens.
        annotations: what was uploaded, in order.
        functions: what was created for agents.
        waiting: requests of annotation for agents, each once.
        completed, failed: what agents sent.
    """

    images: dict[str, bytes]
    labels: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    annotations: list[dict[str, Any]] = field(default_factory=list)
    functions: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    completed: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def get(self, path: str, query: dict[str, list[str]]) -> Any:
        """The response to a GET: JSON, or the bytes of a file."""
        if path == "/api/server/about":
            return {"name": "", "description": "", "version": "2.80.0", "logo_url": "", "subtitle": ""}
        if path == f"/api/tasks/{TASK}":
            return {
                "id": TASK,
                "organization": None,
                "name": "digits",
                "mode": "annotation",
                "size": len(self.images),
                "jobs": {"count": 1, "completed": 0, "validation": 0, "url": ""},
                "labels": {"url": ""},
                "data_chunk_size": len(self.images),
                "data_original_chunk_type": "imageset",
                "updated_date": _DATE,
            }
        if path == f"/api/tasks/{TASK}/data/meta":
            sizes = [Image.open(io.BytesIO(image)).size for image in self.images.values()]
            frames = [
                {"name": name, "related_files": 0, "width": width, "height": height}
                for name, (width, height) in zip(self.images, sizes, strict=True)
            ]
            return {"chunks_updated_date": _DATE, "frames": frames, "deleted_frames": [], "size": len(frames)}
        if path == "/api/labels":
            return {"count": len(self.labels), "next": None, "previous": None, "results": self.labels}
        if path == f"/api/tasks/{TASK}/data":
            return self._chunk() if query["type"] == ["chunk"] else list(self.images.values())[int(query["number"][0])]
        if path.startswith("/api/functions/"):
            return self.functions[int(path.rsplit("/", 1)[1]) - 1]
        raise LookupError(path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The response to a POST or PATCH."""
        match path.rsplit("/", 1)[1]:
            case "annotations":
                self.annotations.append(body)
                return body
            case "functions":
                self.functions.append(body | {"id": len(self.functions) + 1})
                return self.functions[-1]
            case "acquire":
                batch = [each for each in self.waiting if body["request_category"] == "batch"]
                return {"ar_assignment": {"ar_id": "1", "ar_params": self.waiting.pop(0)} if batch else None}
            case "complete":
                self.completed.append(body)
            case "fail":
                self.failed.append(body)
        return {}

    def _chunk(self) -> bytes:
        """As CVAT writes chunks of original quality: files as they are, but those with an EXIF rotation are turned."""
        chunk = io.BytesIO()
        with zipfile.ZipFile(chunk, "w") as archive:
            for number, (name, image) in enumerate(self.images.items()):
                archive.writestr(f"{number:06d}.{name.rsplit('.', 1)[1]}", as_cvat_stores(image))
        return chunk.getvalue()


def as_cvat_stores(image: bytes) -> bytes:
    """The file of a chunk for an uploaded image: upright, without its EXIF orientation."""
    opened = Image.open(io.BytesIO(image))
    if opened.getexif().get(0x0112, 1) == 1:
        return image
    turned = io.BytesIO()
    ImageOps.exif_transpose(opened).save(turned, opened.format, quality=100, subsampling=0)
    return turned.getvalue()


@contextmanager
def cvat_stand_in(images: dict[str, bytes]) -> Iterator[Server]:
    """Serve a task with these images until the block ends."""
    server = Server(images)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path.replace("/?", "?").rstrip("/"))
            self._respond(server.get(address.path, parse_qs(address.query)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            self._respond(server.post(urlsplit(self.path).path.rstrip("/"), body))

        do_PATCH = do_PUT = do_POST  # noqa: N815

        def _respond(self, content: Any) -> None:
            is_file = isinstance(content, bytes)
            body = content if is_file else json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream" if is_file else "application/vnd.cvat+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
