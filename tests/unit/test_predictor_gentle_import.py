"""A runtime is imported at the lowest priority, and what runs later has the usual one."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.stack import ROOT

SCRIPT = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from predictor.backends.gentle_import import import_gently
import_gently("heavy")
import heavy
import_gently("absent")
later = []
thread = threading.Thread(target=lambda: later.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
thread.start(); thread.join()
print(heavy.NICENESS, os.getpriority(os.PRIO_PROCESS, 0), later[0])
"""


def test_only_the_import_is_gentle(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import os, threading\nNICENESS = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert done.stdout.split() == ["19", str(usual), str(usual)]
