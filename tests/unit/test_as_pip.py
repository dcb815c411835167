"""uv with what pip's files say of the index."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from requirements.as_pip import translate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("global.index-url='https://a/simple'\n", {"UV_DEFAULT_INDEX": "https://a/simple"}),
        (
            "global.index-url='https://a/simple'\ninstall.index-url='https://b/simple'\n:env:.timeout='9'\n",
            {"UV_DEFAULT_INDEX": "https://b/simple"},
        ),
        (
            "global.extra-index-url='\\nhttps://a/simple\\nhttps://b/simple'\n",
            {"UV_INDEX": "https://a/simple https://b/simple", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        (
            "global.trusted-host='a b:8080'\nglobal.cert='/a.pem'\n",
            {"UV_INSECURE_HOST": "a b:8080", "SSL_CERT_FILE": "/a.pem"},
        ),
        ("global.proxy='http://a:3128'\ndownload.index-url='https://c'\n", {"ALL_PROXY": "http://a:3128"}),
        ("ERROR: broken", {}),
        ("", {}),
    ],
)
def test_settings_of_pip_are_those_of_uv(listed: str, expected: dict[str, str]) -> None:
    assert translate(listed) == expected


def test_file_of_a_user_reaches_what_is_run_and_its_own_variables_count_more(tmp_path: Path) -> None:
    more = "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
    text = f"[global]\nindex-url = https://index.example/simple\ntrusted-host = one\n{more}"
    (tmp_path / "pip.conf").write_text(text)
    names = ("UV_DEFAULT_INDEX", "UV_INSECURE_HOST", "UV_INDEX")
    script = f"import os; print(*(os.environ.get(name) for name in {names}))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "UV_INSECURE_HOST": "two"}
    done = subprocess.run(
        [sys.executable, "-m", "requirements.as_pip", sys.executable, "-c", script],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    extra = ["https://one.example/simple", "https://two.example/simple"]
    assert done.stdout.split() == ["https://index.example/simple", "two", *extra]
