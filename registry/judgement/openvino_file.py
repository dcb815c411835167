"""Checks OpenVINO's own files: `model.xml`, which names operators, beside `model.bin` with their weights.

OpenVINO reads only these two: the second has the name of the first, and weights are offsets in it, which OpenVINO
compares with its size.
"""

from pathlib import Path
from typing import Any
from xml.parsers import expat

from registry.errors import VersionRejected

_DEEPEST = 200  # nested elements: each body of a loop takes a few


def check_openvino(path: Path) -> None:
    """Accept a graph as OpenVINO writes it.

    Raises:
        VersionRejected: it is another XML, or defines entities, which OpenVINO never writes.
    """
    depth = 0
    parser = expat.ParserCreate()

    def begin(name: str, _: Any) -> None:
        nonlocal depth
        if depth == 0 and name != "net":
            raise VersionRejected(f"{path.name}: got XML of {name!r:.80}, expected OpenVINO's, which is of 'net'")
        depth += 1
        if depth > _DEEPEST:
            raise VersionRejected(f"{path.name}: got elements nested more than {_DEEPEST} deep, expected fewer")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def reject_type(*_: Any) -> None:
        raise VersionRejected(f"{path.name}: got a document type, expected XML without one")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.StartDoctypeDeclHandler = reject_type
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as exc:
        raise VersionRejected(f"{path.name}: not XML: {exc}") from exc
