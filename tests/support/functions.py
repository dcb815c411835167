"""A function as AWS Lambda runs it: AWS's own client of the runtime API, and that API as its documentation has it.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.http_server import Exchange, run_server
from tests.support.processes import ended
from tests.support.stack import PATIENCE_S

_LIMIT_S = 29  # of front.yaml
Object = dict[str, Any]


class Function:
    """A function that runs, and takes one event after the other.

    Attributes:
        events: for it.
        results: of it, `response` or `error` before each.
    """

    def __init__(self) -> None:
        self.events: queue.Queue[Object] = queue.Queue()
        self.results: queue.Queue[tuple[str, Object]] = queue.Queue()

    def invoke(self, event: Object) -> Object:
        """What it returns for an event.

        Raises:
            AssertionError: it raised an exception.
        """
        self.events.put(event)
        kind, result = self.results.get(timeout=_LIMIT_S)
        assert kind == "response", result
        return result

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """The runtime API of it."""
        function = self

        class Runtime(Exchange, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                event = function.events.get()
                # Each of them: the client of the runtime ends with a fault of memory where one is missing.
                headers = {
                    "Content-Type": "application/json",
                    "Lambda-Runtime-Aws-Request-Id": "1",
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + _LIMIT_S) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:front",
                    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
                }
                self.send(200, headers, json.dumps(event).encode())

            def do_POST(self) -> None:
                function.results.put((self.path.rpartition("/")[2], json.loads(self.read())))
                self.send(202, {}, b"{}")

        return Runtime


@contextmanager
def start_function(folder: Path, handler: str, log: Path, variables: Mapping[str, str]) -> Iterator[Function]:
    """Run a function until the block ends.

    Args:
        folder: with its code.
        handler: such as `front.handle`.
        log: for what it prints.
        variables: of its environment.
    """
    function = Function()
    with run_server(function.handler()) as url, log.open("ab") as output:
        given = {"AWS_LAMBDA_RUNTIME_API": url.removeprefix("http://"), "LAMBDA_TASK_ROOT": str(folder)}
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder, env=os.environ | given | dict(variables), stdout=output, stderr=output,
        )  # fmt: skip
        with ended(process, patience_s=PATIENCE_S):
            yield function
            process.kill()  # it waits for the next event
