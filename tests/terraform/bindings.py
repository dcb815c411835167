"""Schemas of a Terraform provider, read from the bindings that npm has of it.

The packages `@cdktf/provider-*` and `@cdktn/provider-*` are generated from `terraform providers schema -json` of the
real provider: one folder for each resource or data source, whose source (TypeScript, in the source map of the script)
says for every attribute its name, type, and whether it is required, optional or computed, and for every block how it
nests. What is built from them is that JSON again, without what the bindings leave out: descriptions, deprecations,
`sensitive`, write-only, and the greatest and the least number of blocks where it is more than one.
"""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

Schema = dict[str, object]
Type = str | list[object]  # as in the JSON: "string", ["list", "string"], ["object", {...}]

_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=data:application/json;base64,(\S+)", re.MULTILINE)
_UNIT = re.compile(r"^export (?:class|function|interface) (\w+).*?^\}", re.MULTILINE | re.DOTALL)
_BASE = re.compile(r"export class \w+ extends cdkt[nf]\.(\w+)")
_TYPE_NAME = re.compile(r'tfResourceType = "(\w+)"')
_MEMBER = re.compile(
    r"// (?P<name>\S+) - computed: (?P<computed>\w+), optional: (?P<optional>\w+), required: (?P<required>\w+)\n"
    r"(?: +private _\w+(?:\?|!)?(?:: [^=;\n]+(?:;[^=;\n]*)*?)?"
    r"(?: = new (?:\w+\.)?(?P<class>\w+)\(this, \"\w+\"(?:, (?P<set>\w+))?\))?; *\n)?"
    r" +public get \w+\(\) \{\n(?: +//.*\n)* +return (?P<getter>[^;]+);"
)
_WRITTEN = re.compile(
    r"^ +(?P<name>\w+): \{\n +value: (?P<mapper>.+),\n +isBlock: \w+,\n +type: \"(?P<nesting>\w+)\",\n"
    r" +storageClassType: \"(?P<storage>\w+)\"",
    re.MULTILINE,
)
_ELEMENT = re.compile(r"get\(\w+: \w+\)[^{]*\{\s+return new (?:\w+\.)?(\w+)OutputReference\(")
_FIELD = re.compile(r"/\*\*(?P<comment>(?:(?!\*/).)*)\*/\s+readonly \w+(?P<optional>\?)?:", re.DOTALL)
_BLOCK = re.compile(r"\* (\w+) block\n")
_FIELD_NAME = re.compile(r"\{@link \S+#(\w+) ")
# The bindings of a WAF statement contain themselves; the schema ends below this many, the first one included.
_SELF_CONTAINED = 4

# By the name that a getter or a class of the bindings has; "List" behind `tolist` is a set.
_OF_GETTERS: dict[str, Type] = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
}
_PRIMITIVES: dict[str, Type] = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
_WORDS = re.compile(r"^(string|number|boolean|any)((?:Map|List)*)$")


class Member(NamedTuple):
    """An attribute or a block as the bindings have it."""

    name: str
    flags: dict[str, bool]
    class_name: str
    is_set: bool
    getter: str


class Written(NamedTuple):
    """How an attribute or a block is written as HCL."""

    mapper: str
    nesting: str
    storage: str


class Bindings:
    """The bindings of one resource, data source, ephemeral resource, or of the provider itself.

    Args:
        folder: of the package's `lib/`.
        nested_attributes: of protocol 6; with protocol 5 what is no block has an object type.
    """

    def __init__(self, folder: Path, *, nested_attributes: bool) -> None:
        self._nested_attributes = nested_attributes
        source = "\n".join(_source(path) for path in sorted(folder.rglob("*.js")))
        self._units: dict[str, str] = {}
        for match in _UNIT.finditer(source):
            self._units[_key(match[0], match[1])] = match[0]

    def schemas(self) -> Iterator[tuple[str, str, Schema]]:
        """The base class, the type of the resource (empty for a provider) and the schema of each class that has one."""
        for name, text in self._units.items():
            base = _BASE.match(text)
            if base is None or not base[1].startswith("Terraform"):
                continue
            type_name = _TYPE_NAME.search(text)
            block = self._provider(name) if base[1] == "TerraformProvider" else self._block(name, f"{name}Config")
            yield base[1], type_name[1] if type_name else "", block

    @cache  # noqa: B019 - the bindings of one resource live as long as they are read
    def _interface(self, name: str) -> dict[str, tuple[bool, bool]]:
        """By the name in Terraform: is it a block, is it required."""
        fields = {}
        for field in _FIELD.finditer(self._units.get(f"interface {name}", "")):
            if link := _FIELD_NAME.search(field["comment"]):
                block = _BLOCK.search(field["comment"])
                fields[link[1]] = bool(block and block[1] == link[1]), not field["optional"]
        return fields

    def _block(self, owner: str, interface: str, above: tuple[str, ...] = ()) -> Schema:
        attributes: Schema = {}
        blocks: Schema = {}
        written = self._written(owner)
        for member in self._members(owner):
            is_block, _ = self._interface(interface).get(member.name, (False, False))
            if is_block and member.class_name:
                if above.count(self._element(member.class_name)[0]) < _SELF_CONTAINED:
                    blocks[member.name] = self._nested_block(member, written[member.name], above)
            else:
                attributes[member.name] = self._attribute(member, written.get(member.name)) | member.flags
        return {"attributes": attributes, "block_types": blocks}

    def _members(self, owner: str) -> Iterator[Member]:
        """Attributes and blocks of a class; a nested one's are in its OutputReference."""
        text = self._units.get(f"{owner}OutputReference", self._units.get(owner, ""))
        for match in _MEMBER.finditer(text):
            flags = {flag: True for flag in ("computed", "optional", "required") if match[flag] == "true"}
            yield Member(match["name"], flags, match["class"] or "", match["set"] == "true", match["getter"] or "")

    def _written(self, owner: str) -> dict[str, Written]:
        function = f"{owner[:1].lower()}{owner[1:]}ToHclTerraform"
        text = self._units.get(function, self._units.get(owner, ""))
        return {m["name"]: Written(m["mapper"], m["nesting"], m["storage"]) for m in _WRITTEN.finditer(text)}

    def _nested_block(self, member: Member, written: Written, above: tuple[str, ...]) -> Schema:
        owner, single = self._element(member.class_name)
        nesting = "single" if written.nesting == "struct" else written.nesting
        found: Schema = {"nesting_mode": nesting, "block": self._block(owner, owner, (*above, owner))}
        if single and nesting != "single":
            found["max_items"] = 1
        if member.flags.get("required"):
            found["min_items"] = 1
        return found

    def _element(self, class_name: str) -> tuple[str, bool]:
        """The struct behind a class of the bindings, and whether there is at most one."""
        if class_name.endswith("OutputReference"):
            return class_name.removesuffix("OutputReference"), True
        element = _ELEMENT.search(self._units[class_name])
        if element is None:
            raise ValueError(f"{class_name}: got no element, expected a list or a map of the bindings")
        return element[1], False

    def _attribute(self, member: Member, written: Written | None) -> Schema:
        if not member.class_name:
            return {"type": self._simple(member, written)}
        if (words := _words(member.class_name)) is not None:
            return {"type": _as_set(words) if member.is_set else words}
        owner, single = self._element(member.class_name)
        if single and (written is None or written.nesting == "struct"):
            nesting = "single"
        elif "ComplexMap" in self._units.get(member.class_name, ""):
            nesting = "map"
        elif written is not None:
            nesting = written.nesting
        else:
            nesting = "set" if member.is_set else "list"
        return self._of_objects(nesting, self._block(owner, owner))

    def _of_objects(self, nesting: str, block: Schema) -> Schema:
        attributes = _attributes_of(block)
        if self._nested_attributes:
            return {"nested_type": {"nesting_mode": nesting, "attributes": attributes}}
        element: Type = ["object", {name: _type_of(each) for name, each in attributes.items()}]
        return {"type": element if nesting == "single" else [nesting, element]}

    def _simple(self, member: Member, written: Written | None) -> Type:
        for getter, found in _OF_GETTERS.items():
            if f"{getter}(" in member.getter:
                return _as_set(found) if "Fn.tolist(" in member.getter else found
        words = _words(written.storage) if written else None
        if words is None:
            return "dynamic"
        return _as_set(words) if written and written.nesting == "set" else words

    def _provider(self, name: str) -> Schema:
        """A provider's own block: its bindings have no classes for what is nested, only functions."""
        flags = {member.name: member.flags for member in self._members(name)}
        attributes: Schema = {}
        blocks: Schema = {}
        for field, written in self._written(name).items():
            if field != "alias":  # an argument of Terraform's own
                self._add(field, written, flags.get(field, {}), self._interface(f"{name}Config"), attributes, blocks)
        return {"attributes": attributes, "block_types": blocks}

    def _add(
        self,
        field: str,
        written: Written,
        flags: dict[str, bool],
        interface: dict[str, tuple[bool, bool]],
        attributes: Schema,
        blocks: Schema,
    ) -> None:
        words = _words(written.storage)
        if words is not None:
            attributes[field] = {"type": _as_set(words) if written.nesting == "set" else words} | flags
            return
        function = re.search(r"(\w+)ToHclTerraform", written.mapper)
        if function is None:
            raise ValueError(f"{field}: got {written.mapper}, expected a function of the bindings")
        owner = f"{function[1][:1].upper()}{function[1][1:]}"
        nested: Schema = {}
        nested_blocks: Schema = {}
        for name, each in self._written(owner).items():
            _, required = self._interface(owner).get(name, (False, False))
            own = {"required" if required else "optional": True}
            self._add(name, each, own, self._interface(owner), nested, nested_blocks)
        nesting = "single" if written.nesting == "struct" else written.nesting
        if interface.get(field, (False, False))[0]:
            blocks[field] = {"nesting_mode": nesting, "block": {"attributes": nested, "block_types": nested_blocks}}
        else:
            attributes[field] = self._of_objects(nesting, {"attributes": nested, "block_types": nested_blocks}) | flags


def _source(script: Path) -> str:
    """The TypeScript that a script was made from, with the comments that the script itself lacks."""
    source_map = _SOURCE_MAP.search(script.read_text())
    if source_map is None:
        raise ValueError(f"{script}: got no source map, expected one with the source")
    return "\n".join(json.loads(base64.b64decode(source_map[1]))["sourcesContent"])


def _key(text: str, name: str) -> str:
    """An interface has the name of a class or not: apart from both."""
    return f"interface {name}" if text.startswith("export interface") else name


def _words(name: str) -> Type | None:
    """`stringMapList` or `StringMapList`, a list of maps of strings, as a type; None for the name of a struct."""
    match = _WORDS.match(f"{name[:1].lower()}{name[1:]}")
    if match is None:
        return None
    found = _PRIMITIVES[match[1]]
    for collection in re.findall("Map|List", match[2]):
        found = [collection.lower(), found]
    return found


def _as_set(found: Type) -> Type:
    return ["set", *found[1:]] if isinstance(found, list) and found[0] == "list" else found


def _attributes_of(block: Schema) -> Schema:
    """What is nested in an attribute: attributes alone."""
    attributes = block["attributes"]
    if not isinstance(attributes, dict) or block["block_types"]:
        raise ValueError(f"got blocks in an attribute: {block}")
    return attributes


def _type_of(attribute: object) -> Type:
    if not isinstance(attribute, dict) or "type" not in attribute:
        raise ValueError(f"got {attribute}, expected an attribute with a type")
    found: Type = attribute["type"]
    return found
