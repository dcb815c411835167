"""Parquet: parts of a batch, with the columns that the server says its responses have; and rows of a table."""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.errors import StartError

_GROUP_BYTES = 2 * 2**20  # of JSONL, in a row group: as objects it needs ten times that
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
    """The columns of the parts of one task: the same in all parts, also where nothing was found.

    Attributes:
        version: of the task and the columns: the same where all are.
    """

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
            self._members = self._members_of(self._arrow.struct(self._schema))
        except (KeyError, ValueError) as exc:
            raise StartError(f"the server does not say in /openapi.json what {task!r} responds with: {exc!r}") from exc
        named = json.dumps([[each.name, str(each.type)] for each in self._schema])
        self.version = f"{task}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def write(self, lines: Path) -> Path:
        """Write a Parquet file beside a file of JSONL, with the same rows; returns its path.

        Raises:
            StartError: a line has a member that has no column, or another type.
        """
        path = lines.with_suffix(".parquet")
        try:
            with (
                lines.open("rb") as file,
                self._arrow.parquet.ParquetWriter(path, self._schema, compression="zstd") as writer,
            ):
                while some := file.readlines(_GROUP_BYTES):
                    rows = [json.loads(line) for line in some]
                    if unknown := next(_find_unknown(rows, self._members, ""), ""):
                        raise self._other(f"got {unknown}")
                    writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))
        except (self._arrow.ArrowException, OverflowError) as exc:
            raise self._other(str(exc)) from exc
        return path

    def _other(self, what: str) -> StartError:
        said = "the server responds otherwise than its /openapi.json says"
        return StartError(f"{said}: {what}; next: --format jsonl, to another OUTPUT")

    def _members_of(self, kind: Any) -> Any:
        """By name, the members of a struct, or of the structs in a list, that have a column; None of anything else."""
        if self._arrow.types.is_list(kind):
            return self._members_of(kind.value_type)
        return {each.name: self._members_of(each.type) for each in kind} if self._arrow.types.is_struct(kind) else None

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


def _find_unknown(value: Any, members: Any, name: str) -> Iterator[str]:
    """The names of what has no column, in JSON that should have these members."""
    if members is None:
        return
    if isinstance(value, list):
        for each in value:
            yield from _find_unknown(each, members, name)
    elif isinstance(value, dict):
        for member, inner in value.items():
            inside = f"{name}.{member}".lstrip(".")
            if member not in members:
                yield inside
            else:
                yield from _find_unknown(inner, members[member], inside)


def _task_of(schema: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = (
        schema.get("properties", {}).get("model", {}).get("properties", {}).get("task", {}).get("enum", [])
    )
    return found
