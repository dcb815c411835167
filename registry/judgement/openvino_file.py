"""OpenVINO's own files: `model.xml`, which names operators, beside `model.bin` with their weights.

OpenVINO reads nothing but these two: the second has the name of the first, and weights are places in it, which OpenVINO
holds against its size.
"""

from pathlib import Path
from typing import Any
from xml.parsers import expat

from registry.errors import VersionRejected

_DEEPEST = 200  # nested elements: each body of a loop takes a few


def check_openvino(path: Path) -> None:
    """Accept a graph as OpenVINO writes it.

    Raises:
        VersionRejected: it is no such XML, or defines entities, which OpenVINO never writes.
    """
    depth = 0
    parser = expat.ParserCreate()

    def begin(name: str, _: Any) -> None:
        nonlocal depth
        if depth == 0 and name != "net":
            raise VersionRejected(f"{path.name}: got XML of {name!r:.80}, expected OpenVINO's, which is of 'net'")
        depth += 1
        if depth > _DEEPEST:
            raise VersionRejected(f"{path.name}: got elements in one another more than {_DEEPEST} deep, expected fewer")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse_type(*_: Any) -> None:
        raise VersionRejected(f"{path.name}: got a document type, expected XML without one")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.StartDoctypeDeclHandler = refuse_type
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as exc:
        raise VersionRejected(f"{path.name}: no XML: {exc}") from exc
