"""The codes of errors agree: the enumeration, the table of docs/api.md, and OpenAPI."""

import re
from pathlib import Path

from environment.error_codes import GRPC_KEY, ErrorCode
from transformer.rest.documents import Error

API = (Path(__file__).parents[2] / "docs/api.md").read_text()
ROW = re.compile(r"\| `(?P<code>\w+)` \| (?P<http>\d+) \| (?P<grpc>\w+|-) \| (?P<meaning>[^|]+) \| (?P<next>[^|]+) \|")


def test_documentation_has_every_code_once_in_their_order() -> None:
    rows = [match.groupdict() for match in ROW.finditer(API.partition("## Errors")[2])]
    assert [row["code"] for row in rows] == list(ErrorCode)
    for row in rows:
        code = ErrorCode(row["code"])
        assert (int(row["http"]), row["grpc"]) == (code.http_status, code.grpc_status or "-"), code
        assert row["next"].startswith("retry after `Retry-After`") == code.is_retryable, code
        assert row["meaning"].strip(), code
    assert f"`{GRPC_KEY}`" in API


def test_openapi_has_every_code() -> None:
    assert Error.model_json_schema()["properties"]["code"]["enum"] == list(ErrorCode)
