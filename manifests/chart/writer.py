"""Writes objects as Helm templates: guards around the fields of components, expressions for values."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from manifests.chart.tree import ABSENT, Named, Node
from manifests.chart.values import COPIES, STRING, VALUES, Slot, Text

# Placeholders in kustomize's output for names of the release.
NAMESPACE = "zz-namespace"
PREFIX = "zz-prefix-"
SERVICE = "zz-service"
HASH = "zz-hash"
_EXPRESSIONS = {
    f"{PREFIX}nereid": '{{ include "nereid.fullname" . }}',
    NAMESPACE: "{{ .Release.Namespace }}",
    SERVICE: "{{ .Release.Service }}",
    HASH: '{{ include "nereid.hash" . }}',
}
_HEAD = "{{- /* Made by `make chart` of the folder manifests: change that. */ -}}"
_ON = '{{- $on := include "nereid.on" . | fromJson -}}'


class ChartError(Exception):
    """The manifests cannot be converted; the message has the place and the next step."""


class _Dumper(yaml.SafeDumper):
    """Dumps multi-line strings as blocks."""


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)


class Writer:
    """The templates of a mode.

    Attributes:
        defines: templates of the slots, with the content of the manifests.
        used: paths of values with a place in this mode; of images with repository and tag.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.defines: list[str] = []
        self.used: dict[str, tuple[str, str] | None] = {}
        self._title = ""
        self._slots = {place: each for each in VALUES if isinstance(each, Slot) for place in each.places}
        self._texts = [each for each in VALUES if isinstance(each, Text)]

    def file(self, title: str, node: Node) -> str:
        """The template of an object with the title `<kind>/<name>`."""
        self._title = title
        guard = node.guard()
        here = f'eq .Values.mode "{self.mode}"'
        condition = f"and ({here}) ({guard})" if guard else here
        lines = (
            line
            for key, child in node.inside().children()
            for line in self._entry(f"{key}:", child, f"{title}/{key}", "")
        )
        return "\n".join([_HEAD, _ON, *_block(f"if {condition}", lines, ""), ""])

    def define(self, name: str, node: Node, place: str) -> None:
        """Define a template of `v: <content>`, for the helpers."""
        lines = self._plain("v:", node, place, "") if node.guard() is not None else ["v:"]
        head = f'{{{{- define "nereid.{self.mode}.{name}" -}}}}'
        self.defines.append("\n".join([head, _ON, *lines, "{{- end -}}"]))

    def _entry(self, head: str, node: Node, place: str, pad: str) -> Iterator[str]:
        slot = self._slots.get(place)
        if slot is None:
            return self._plain(head, node, place, pad)
        self.used[slot.value] = None
        self.define(slot.value, node, place)
        text = " | quote" if slot.schema["type"] == STRING["type"] else ""
        is_nested = not {"object", "array"}.isdisjoint(slot.schema["type"])
        value = f"{{{{- . | nindent {len(pad) + 2} }}}}" if is_nested else f"{{{{ .{text} }}}}"
        source = f'with include "nereid.slot" (list . "{self.mode}.{slot.value}" {_path(slot.value)})'
        lines = _block(source, [f"{pad}{head} {value}"], pad)
        # A value does not restore a field that a component removes.
        guard = node.guard() if node.base is not ABSENT else ""
        return _block(f"if {guard}", lines, pad) if guard else lines

    def _plain(self, head: str, node: Node, place: str, pad: str) -> Iterator[str]:
        guard = node.guard()
        if guard is None:
            return
        node = node.inside()
        lines = self._map(head, node, place, pad) if node.is_map() else self._choice(head, node, place, pad)
        yield from _block(f"if {guard}", lines, pad) if guard else lines

    def _map(self, head: str, node: Node, place: str, pad: str) -> Iterator[str]:
        children = dict(node.children())
        inner = {key.rpartition("/")[2] for key in self._slots if key.rpartition("/")[0] == place}
        children |= {key: Node(ABSENT) for key in sorted(inner - children.keys())}
        is_list = isinstance(node.alternatives()[0][1], Named)
        if not children:
            yield f"{pad}{head} {'[]' if is_list else '{}'}"
            return
        deeper = pad + "  "
        lines: list[str] = []
        for key, child in children.items():
            lines += self._entry("-" if is_list else f"{key}:", child, f"{place}/{key}", deeper)
        if head == "-":
            if lines[0].lstrip().startswith("{{"):
                raise ChartError(f"{place}: its first field is conditional; expected one that always exists")
            lines[0] = f"{pad}- {lines[0].lstrip()}"
        else:
            yield f"{pad}{head}"
        repeated = self._repeated(node) if head == "-" else None
        yield from _block(f"range default list ({_required(repeated)})", lines, pad) if repeated else lines

    def _choice(self, head: str, node: Node, place: str, pad: str) -> Iterator[str]:
        *conditional, (_, last) = node.alternatives()
        for number, (component, value) in enumerate(conditional):
            yield f"{pad}{{{{- {'else if' if number else 'if'} $on.{component} }}}}"
            yield from self._value(head, value, place, pad)
        if conditional:
            yield f"{pad}{{{{- else }}}}"
        yield from self._value(head, last, place, pad)
        if conditional:
            yield f"{pad}{{{{- end }}}}"

    def _value(self, head: str, value: Any, place: str, pad: str) -> Iterator[str]:
        if isinstance(value, list):
            yield f"{pad}{head}"
            for each in value:
                yield from self._value("-", each, place, pad + "  ")
            return
        if place in COPIES:
            quote = " | quote" if isinstance(value, str) else ""
            yield f"{pad}{head} {{{{ {_path(COPIES[place])} | default {json.dumps(value)}{quote} }}}}"
            return
        text = next((each for each in self._texts if self._is(each, value)), None)
        if text is None:
            yield f"{pad}{head} {_scalar(value, pad)}"
            return
        self.used[text.value] = None
        if text.kind == "optional":
            yield from _block(f"with {_path(text.value)}", [f"{pad}{head} {{{{ . | quote }}}}"], pad)
            return
        if text.kind == "image":
            self.used[text.value] = (str(text.found), str(value).removeprefix(f"{text.found}:"))
        yield f"{pad}{head} {_expression(text)}"

    def _repeated(self, node: Node) -> Text | None:
        found = list(_scalars(node.alternatives()[0][1]))
        texts = (each for each in self._texts if each.kind == "each")
        return next((each for each in texts if any(self._is(each, one) for one in found)), None)

    def _is(self, text: Text, value: Any) -> bool:
        if text.within not in {"", self._title}:
            return False
        if text.kind == "image":
            return isinstance(value, str) and value.startswith(f"{text.found}:")
        return type(value) is type(text.found) and value == text.found


def _path(value: str) -> str:
    """Nil-safe path of a value: `((.Values.a).b).c`."""
    first, *names = value.split(".")
    path = f".Values.{first}"
    for name in names:
        path = f"({path}).{name}"
    return path


def _block(head: str, lines: Iterable[str], pad: str) -> Iterator[str]:
    yield f"{pad}{{{{- {head} }}}}"
    yield from lines
    yield f"{pad}{{{{- end }}}}"


def _scalars(value: Any) -> Iterator[Any]:
    """Scalars in nested maps, without those of lists, whose items are separate."""
    if isinstance(value, dict) and not isinstance(value, Named):
        for each in value.values():
            yield from _scalars(each)
    else:
        yield value


def _required(text: Text) -> str:
    wanted = f"{text.value}: got nothing, expected {text.comment[0].lower()}{text.comment[1:]}"
    return f"required {json.dumps(wanted)} {_path(text.value)}"


def _expression(text: Text) -> str:
    if text.kind == "each":
        return "{{ . | quote }}"
    if text.kind == "required":
        return f"{{{{ {_required(text)} | quote }}}}"
    if text.kind == "image":
        return f'{{{{ include "nereid.image" (list "{text.value}" {_path(text.value)}) | quote }}}}'
    return f"{{{{ {_path(text.value)}{' | quote' if isinstance(text.found, str) else ''} }}}}"


def _scalar(value: Any, pad: str) -> str:
    dumped = yaml.dump([value], Dumper=_Dumper, width=10_000, sort_keys=False).removeprefix("- ").rstrip("\n")
    if "{{" in dumped:
        raise ChartError(f"{dumped}: has {{{{, which Helm would read; expected none in the manifests")
    for found, expression in _EXPRESSIONS.items():
        dumped = dumped.replace(found, expression)
    return dumped.replace("\n", f"\n{pad}")
