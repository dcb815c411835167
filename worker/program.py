"""`python -m worker`: takes messages from SQS until SIGTERM or Ctrl-C."""

import logging
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from environment import api_key, sentry
from environment.arguments import Parser, program
from environment.listening import join, listen
from environment.log_lines import log_as_json
from environment.variables import describe_invalid, variable
from worker.bucket import Buckets
from worker.consumer import Consumer
from worker.errors import Away, Failed, StartError
from worker.inference import Transformer
from worker.metrics import Metrics
from worker.queue import Queue
from worker.settings import Settings
from worker.work import Work

log = logging.getLogger("worker")

_PAUSE_S = 2.0  # before another try to start


def main() -> int:
    """Run the worker; 2 where a setting is wrong."""
    names = ", ".join(variable(Settings, name) for name in Settings.model_fields)
    Parser(prog=program("worker"), description=f"Take messages from SQS, have their images predicted, and write the "
           f"results to S3. Its settings are environment variables: {names}").parse_args()  # fmt: skip
    try:
        settings = Settings()
        _run(settings)
    except ValidationError as exc:
        print(f"error: {next(describe_invalid(Settings, exc))}", file=sys.stderr)
        return 2
    except (SettingsError, StartError, api_key.AccessError, httpx.InvalidURL) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


def _run(settings: Settings) -> None:
    """Work until a signal.

    Raises:
        StartError: the queue or the port cannot be used.
        AccessError: the API key is invalid.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker %(message)s", stream=sys.stderr)
    if settings.log_format == "json":
        log_as_json()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    sentry.report_errors("worker")
    together = settings.slots + 4  # beside the slots: receiving, hiding, counting
    metrics = Metrics()
    queue = Queue(
        settings.queue_url,
        dead_letter_url=settings.dead_letter_url,
        visibility_s=settings.visibility_s,
        wait_s=settings.wait_s,
        together=together,
    )
    transformer = Transformer(settings.url, timeout_s=settings.request_timeout_s, together=settings.slots)
    work = Work(Buckets(together=together, most_bytes=settings.max_image_bytes), transformer, metrics, settings)
    consumer = Consumer(queue, work, metrics, settings)
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        consumer.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    _serve_metrics(settings, metrics)
    if _wait(queue, transformer, settings.url, stopped):
        log.info("%s to %s, %d slots", settings.queue_url, settings.url, settings.slots)
        consumer.run()
    log.info("stopped")
    logging.shutdown()
    sentry.flush()
    sys.stdout.flush()
    # What did not end within its time was given back: another worker does it.
    os._exit(0)


def _wait(queue: Queue, transformer: Transformer, url: str, stopped: threading.Event) -> bool:
    """Wait until the queue can be used and the transformer is ready; False where the worker is stopped before."""
    is_open = False
    while not stopped.is_set():
        try:
            if not is_open:
                queue.open()
                is_open = True
            if transformer.is_ready():
                return True
            log.info("waiting for the transformer at %s", url)
        except (Away, Failed) as exc:
            log.warning("%s; tried again in %.0f s", exc, _PAUSE_S)
        stopped.wait(_PAUSE_S)
    return False


def _serve_metrics(settings: Settings, metrics: Metrics) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status, kind, content = 404, "text/plain", b"expected /metrics or /healthz\n"
            if path == "/metrics":
                status, kind, content = 200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)
            elif path == "/healthz":
                status, content = 200, b"ok\n"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """No line for each scrape."""

    try:
        listener = listen(settings.address, settings.port)
    except OSError as exc:
        where = join(settings.address, settings.port)
        raise StartError(f"WORKER_PORT: {where} cannot be listened on: {exc.strerror}") from exc
    server = ThreadingHTTPServer((settings.address, settings.port), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_activate()
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
