"""A connection that a proxy keeps between two requests."""

import time
from http.client import HTTPConnection
from pathlib import Path

from tests.support.ports import find_free_ports
from tests.support.transformer import start_transformer

_SILENCE_S = 6.0  # longer than uvicorn's own patience


def test_connection_without_a_request_stays_open(tmp_path: Path) -> None:
    (nobody,) = find_free_ports(1)
    with start_transformer(f"127.0.0.1:{nobody}", tmp_path / "log") as transformer:
        connection = HTTPConnection("127.0.0.1", transformer.http_port, timeout=10)
        for silence_s in (_SILENCE_S, 0):
            connection.request("GET", "/v2/health/live")  # RemoteDisconnected where it was closed
            assert connection.getresponse().read() == b'{"live":true}'
            time.sleep(silence_s)
        connection.close()
