"""A YAML file as plain data, with the place of every key and value.

PyYAML reads the syntax; the meaning of scalars is ours, because YAML 1.1 would make a number of
`1:30`, a date of `2026-01-01` and an octal of `010`. Here a plain scalar is null, a boolean, a
whole decimal number, a decimal fraction, or text. A key is always text.

What this page itself refuses: broken syntax, a key written twice, a key without a value, tags,
and nesting or aliases that would grow without bound.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trafficmgr.config.problems import ConfigError, Problem, Span

Loc = tuple[str | int, ...]
"""The way from the root to a value: keys and indices, as pydantic has it."""

MAX_DEPTH = 32
MAX_NODES = 100_000
"""Bounds for aliases of aliases; a file of 1,000 endpoints has about 50,000 nodes."""

MAX_BYTES = 4 * 1024 * 1024
"""A file of 1,000 endpoints has about 1 MiB; more than this is not a configuration."""

NO_VALUE = "has no value"
"""What is wrong with a key that has none; YAML reads it as null."""

_TAG = "tag:yaml.org,2002:"
_HINTS = {
    "'\\t'": "indent with spaces: YAML does not allow tabs",
    "mapping values are not allowed": 'put a value that contains ": " in quotes',
    "could not find expected ':'": 'write ":" and a space after the key',
    "expected <block end>": "indent it like the lines that it belongs with",
    "but got '?'": "put a value that contains ? in quotes",
    "expected ',' or": "close the bracket, or write a comma",
    "expected alphabetic": "put a value that starts with & or * in quotes",
    "cannot start any token": "put the value in quotes",
    "found undefined alias": "write the value out, or define it with & further up",
    "found unexpected end of stream": "close the quotes",
    "but found another document": 'one file is one document: remove the "---"',
}


_KINDS = ("map", "seq", "str", "bool", "int", "float", "null")


class _Loader(yaml.SafeLoader):
    """Composes nodes; knows only the five kinds of scalar that are described above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _kind, _first, _pattern in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("yYnNtTfFoO"), r"(?i:yes|no|true|false|on|off)"),
    ("int", list("-+0123456789"), r"[-+]?(?:0|[1-9][0-9]{0,17})"),
    ("float", list("-+0123456789"), r"[-+]?[0-9]{1,17}\.[0-9]{1,17}"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, and its key (the value itself for items of a list)."""

    key: Span
    value: Span
    written: str


@dataclass(slots=True)
class Document:
    """A file that could be read. `data` has only dict, list, str, int, float, bool and None.

    `unread` says of values that mean nothing what is wrong with them, and what to do.
    """

    path: Path
    lines: list[str]
    data: Any = None
    places: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: dict[Loc, tuple[str, str]] = field(default_factory=dict)

    def problem(self, span: Span, text: str, hint: str = "") -> Problem:
        """Return a problem that shows its line."""
        source = self.lines[span.line - 1] if 0 < span.line <= len(self.lines) else ""
        return Problem(self.path, span, text, hint, source)

    def place(self, loc: Loc) -> Place:
        """Return the place of a value, or of the nearest thing around it that was written."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places.get(loc, Place(Span(1, 1), Span(1, 1), ""))

    def at(self, loc: Loc) -> Any:  # noqa: ANN401  YAML holds anything
        """Return the value there, or None."""
        value = self.data
        for part in loc:
            match value, part:
                case dict(), _ if part in value:
                    value = value[part]
                case list(), int() if 0 <= part < len(value):
                    value = value[part]
                case _:
                    return None
        return value


def read(path: Path, data: bytes | None = None) -> Document:
    """Read a file, or `data` in its place.

    Raises:
        ConfigError: It can't be read, is no text, no YAML, or empty.
    """
    document = Document(path, [])
    text = _decoded(path, bytes_of(path) if data is None else data)
    document.lines = text.splitlines()
    node = _composed(document, text)
    if node is None:
        raise ConfigError([Problem(path, Span(), "the file is empty", "see config/example.yaml")])
    try:
        _Walk(document).walk(node, (), None)
    except RecursionError as error:
        raise ConfigError([document.problem(Span(1, 1), "the file contains itself")]) from error
    return document


def bytes_of(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        ConfigError: It can't be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"the file can't be read: {error.strerror}"
        raise ConfigError([Problem(path, Span(), text, "check the path")]) from error
    if len(data) > MAX_BYTES:
        text = f"the file is larger than {MAX_BYTES} bytes and can't be a configuration"
        raise ConfigError([Problem(path, Span(), text)])
    return data


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        span = Span(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        lines = data.decode("utf-8-sig", "replace").split("\n")
        text = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8"
        raise ConfigError([Problem(path, span, text, hint, lines[span.line - 1])]) from error


def _composed(document: Document, text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        span = Span(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        problem = document.problem(span, "a control character is not allowed", "remove it")
        raise ConfigError([problem]) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(document, error)]) from error
    except RecursionError as error:
        raise ConfigError(
            [document.problem(Span(1, 1), "the file is nested too deeply")]
        ) from error


def _syntax_problem(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    what = error.problem or "it can't be read"
    mark = error.problem_mark or error.context_mark
    assert mark is not None  # noqa: S101  PyYAML gives one of them with each of its errors
    line = min(mark.line, max(0, len(document.lines) - 1))
    column = mark.column if line == mark.line else len(document.lines[line])
    hint = next((hint for sign, hint in _HINTS.items() if sign in what), "")
    if error.context and error.context_mark and error.context_mark.line != mark.line:
        what = f"{what}, {error.context} that began on line {error.context_mark.line + 1}"
    return document.problem(Span(line + 1, column + 1), f"this is not YAML: {what}", hint)


class _Walk:
    """Turns nodes into data and notes their places on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.left = MAX_NODES

    def walk(self, node: yaml.Node, loc: Loc, key: yaml.Node | None) -> None:
        """Take the whole tree into the document."""
        self.document.data = self._data(node, loc, key)

    def _data(self, node: yaml.Node, loc: Loc, key: yaml.Node | None) -> Any:  # noqa: ANN401  YAML holds anything
        self.left -= 1
        if self.left < 0 or len(loc) > MAX_DEPTH:
            problem = self._problem(key or node, "is nested too deeply, or repeats itself", "")
            raise ConfigError([*self.document.problems, problem])
        value = _span(node, key)
        self.document.places[loc] = Place(_span(key) if key else value, value, _written(node))
        if node.tag.removeprefix(_TAG) not in _KINDS:
            self.document.unread[loc] = (f'has the tag "{node.tag}"', "write the value alone")
        match node:
            case yaml.MappingNode():
                return dict(self._items(node, loc))
            case yaml.SequenceNode():
                return [self._data(item, (*loc, i), None) for i, item in enumerate(node.value)]
            case _:
                return self._scalar(node, loc)

    def _items(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, Any]]:
        first_line: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, "this key is not text", "write a plain word")
            elif key.value in first_line:
                text = f'key "{key.value}" is written twice, first on line {first_line[key.value]}'
                self._problem(key, text, "remove one of them")
            else:
                first_line[key.value] = key.start_mark.line + 1
                yield key.value, self._data(value, (*loc, key.value), key)

    def _scalar(self, node: yaml.Node, loc: Loc) -> Any:  # noqa: ANN401  YAML holds anything
        match node.tag.removeprefix(_TAG):
            case "str":
                return str(node.value)
            case "bool":
                return node.value.lower() in ("yes", "true", "on")
            case "int":
                return int(node.value)
            case "float":
                return float(node.value)
            case "null":
                self.document.unread[loc] = (NO_VALUE, "write one, or remove the line")
        return None

    def _problem(self, node: yaml.Node, text: str, hint: str) -> Problem:
        problem = self.document.problem(_span(node), text, hint)
        self.document.problems.append(problem)
        return problem


def _span(node: yaml.Node, key: yaml.Node | None = None) -> Span:
    """Return where a node is shown: itself if it is on one line, else its key or first line."""
    start, end = node.start_mark, node.end_mark
    is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if is_block and key is not None:
        return _span(key)
    if is_block and node.value:
        first = node.value[0]
        return _span(first[0] if isinstance(first, tuple) else first)
    width = end.column - start.column if end.line == start.line else 1
    return Span(start.line + 1, start.column + 1, max(1, width))


def _written(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
