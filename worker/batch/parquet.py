"""Parquet: parts of a batch, with the columns that the server says its responses have; and rows of a table."""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.errors import StartError

_REFERENCE = "#/components/schemas/"


def require() -> Any:
    """pyarrow, with `pyarrow.parquet`.

    Raises:
        StartError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as exc:
        raise StartError("Parquet needs pyarrow; next: pip install 'nereid[parquet]', or make .venv/.parquet") from exc
    return importlib.import_module("pyarrow")


class Columns:
    """The columns of the parts of one task: the same in all parts, also where nothing was found."""

    def __init__(self, document: Mapping[str, Any], task: str | None) -> None:
        """Read them.

        Args:
            document: OpenAPI of the server.
            task: of the model.

        Raises:
            StartError: pyarrow is not installed, or the document does not say what the task responds with.
        """
        self._arrow = require()
        self._named: Mapping[str, Any] = document.get("components", {}).get("schemas", {})
        try:
            (members,) = (each["properties"] for each in self._named.values() if _task_of(each) == [task])
            if "image" in members:
                columns = {"input": {"type": "string"}, "etag": {"type": "string"}, **members}
            else:
                columns = {"input": {"type": "string"}, "row": {"type": "integer"}, "model": members["model"],
                           "prediction": members["predictions"]["items"]}  # fmt: skip
            self._schema = self._arrow.schema(self._fields(columns))
        except (KeyError, ValueError) as exc:
            raise StartError(f"the server does not say in /openapi.json what {task!r} responds with: {exc!r}") from exc

    def write(self, lines: Path) -> Path:
        """Write a Parquet file beside a file of JSONL, with the same rows; returns its path."""
        rows = [json.loads(line) for line in lines.read_bytes().splitlines()]
        path = lines.with_suffix(".parquet")
        table = self._arrow.Table.from_pylist(rows, schema=self._schema)
        self._arrow.parquet.write_table(table, path, compression="zstd")
        return path

    def _fields(self, members: Mapping[str, Any]) -> list[Any]:
        return [self._arrow.field(name, self._type(schema)) for name, schema in members.items()]

    def _type(self, schema: Mapping[str, Any]) -> Any:
        """The type of a JSON Schema, as far as the server's responses use that.

        Raises:
            KeyError: it has another one.
        """
        schema = self._resolve(schema)
        kinds = schema.get("type", "string")  # an enum of words has none
        kind = kinds if isinstance(kinds, str) else next(each for each in kinds if each != "null")
        if kind == "array":
            return self._arrow.list_(self._type(schema["items"]))
        if kind != "object":
            names = {"string": "string", "number": "float64", "integer": "int64", "boolean": "bool"}
            return self._arrow.type_for_alias(names[kind])
        if "properties" in schema:
            return self._arrow.struct(self._fields(schema["properties"]))
        return self._arrow.map_(self._arrow.string(), self._type(schema["additionalProperties"]))

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """A schema without a reference or a choice; one between objects has the members of all."""
        if "$ref" in schema:
            return self._resolve(self._named[schema["$ref"].removeprefix(_REFERENCE)])
        if choice := schema.get("anyOf") or schema.get("oneOf"):
            choices = [self._resolve(each) for each in choice if each != {"type": "null"}]
            if len(choices) == 1:
                return choices[0]
            members = {name: member for each in choices for name, member in each["properties"].items()}
            return {"type": "object", "properties": members}
        return schema


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, some in memory at a time; what is no number is null.

    Raises:
        StartError: it cannot be read.
    """
    arrow = require()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124 - NaN
    except arrow.ArrowException as exc:
        raise StartError(f"{path}: {exc}") from exc


def _task_of(schema: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = (
        schema.get("properties", {}).get("model", {}).get("properties", {}).get("task", {}).get("enum", [])
    )
    return found
