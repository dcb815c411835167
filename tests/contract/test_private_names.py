"""Tests use what the parts offer, and none of their private names: a private name may change without a defect."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
# Public, whatever their names begin with.
PUBLIC = {"_exit", "_asdict", "_fields", "_make", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def find_private_names(tree: ast.AST) -> Iterator[str]:
    """Private names of modules and objects that the code of a test file imports, reads, patches or calls."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PARTS:
                yield from (f"{module}.{each.name}" for each in names if is_private(each.name))
            case ast.Attribute(value=owner, attr=name) if is_private(name):
                if not (isinstance(owner, ast.Name) and owner.id in {"self", "cls"}):
                    yield ast.unparse(node)
            case ast.Call(
                func=ast.Attribute(attr=function) | ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]
            ):
                if function in {"setattr", "getattr", "delattr", "hasattr"} and is_private(name):
                    yield name
            case ast.Constant(value=str(path)) if path.split(".")[0] in PARTS and path.replace(".", "").isidentifier():
                yield from (path for name in path.split(".") if is_private(name))


@pytest.mark.parametrize(
    "code",
    [
        "from transformer.rest.body import _read",
        "from transformer.rest import body\nbody._read(b'')",
        "client.get()._channel.close()",
        "monkeypatch.setattr(body, '_MAX', 1)",
        "monkeypatch.setattr('transformer.rest.body._MAX', 1)",
        "getattr(body, '_read')",
    ],
)
def test_private_name_is_found(code: str) -> None:
    assert len(list(find_private_names(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "self._count += 1",
        "os._exit(0)",
        "row._replace(x=1)",
        "from tests.support.x import _y",
        "body.__class__",
        "'a._b'",
    ],
)
def test_own_and_public_names_are_not_reported(code: str) -> None:
    assert list(find_private_names(ast.parse(code))) == []


def test_tests_use_no_private_name_of_the_product() -> None:
    names = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in find_private_names(ast.parse(path.read_text()))
    ]
    assert names == [], "next: test the public function, or give its constructor a parameter"
