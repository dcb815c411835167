"""Dependencies whose private parts are used: a new version is compared with what relies on them before it is pinned."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

LOCK = (Path(__file__).parents[2] / "requirements/constraints.txt").read_text()
PATCHED = {
    # transformer/rest/http_limits.py overrides methods of HttpToolsProtocol and of the parser
    "uvicorn": "0.54.0",
    "httptools": "0.9.0",
    # transformer/grpc/receive.py registers unary methods as streams; server.py knows the names of gRPC's tasks
    "grpcio": "1.85.1",
}


@pytest.mark.parametrize(("package", "tried"), PATCHED.items())
def test_version_is_the_one_that_the_patch_was_written_for(package: str, tried: str) -> None:
    pinned = re.findall(rf"^{package}==(\S+)", LOCK, re.MULTILINE)
    assert pinned == [tried], "compare the methods that are overridden, then raise the version here"
    assert version(package) == tried
