"""With LOG_FORMAT=json whatever Python itself reports is a JSON line too."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.stack import ROOT

CONFIGURED = {
    "transformer": "from transformer.observability import logs; logs.configure('json')",
    "synchroniser": "from predictor.synchroniser import server; from predictor.settings import Settings;"
    "server._configure_logging(Settings())",
    "worker": "from worker import program; from worker.errors import StartError\n"
    "def stop(*_, **__): raise StartError\n"
    "program.Queue = stop\n"
    "try: program._run(program.Settings())\n"
    "except StartError: pass",
}
REPORTED = """
import threading, warnings
def fail(): raise ValueError('a\\nb')
warnings.warn('deprecated')
thread = threading.Thread(target=fail, name='loop')
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize("program", CONFIGURED)
def test_warnings_and_exceptions_are_json_lines(program: str) -> None:
    variables = {"LOG_FORMAT": "json", "WORKER_QUEUE_URL": "http://127.0.0.1:9/1/queue"}
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED[program] + REPORTED], cwd=ROOT, env=os.environ | variables,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    warning, of_thread, of_process = [json.loads(line) for line in done.stderr.splitlines()]
    assert (warning["logger"], warning["level"]) == ("py.warnings", "WARNING")
    assert "deprecated" in warning["message"]
    assert (of_thread["message"], of_thread["level"]) == ("thread loop: ended by ValueError", "CRITICAL")
    assert of_process["message"] == "ended by ValueError"
    for ended in (of_thread, of_process):
        assert ended["exception"].endswith("ValueError: a\nb")
