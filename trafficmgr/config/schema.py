"""The JSON Schema of the configuration, for editors, and what the loader asks of it.

`python -m trafficmgr.config.schema > config/schema.json` makes the file; a test checks that it is
up to date. Editors find it by a first line of `# yaml-language-server: $schema=schema.json`.
"""

import json
import sys
from functools import cache
from typing import Any

from trafficmgr.config import units
from trafficmgr.config.shape import FileShape

Node = dict[str, Any]


def json_schema() -> Node:
    """Return the schema (draft 2020-12) of a configuration file."""
    schema = _tidied(FileShape.model_json_schema())
    title = "A configuration of trafficmgr"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": title,
    }


def known_keys() -> set[str]:
    """Return every key of the language; names that the user chooses are not among them."""
    schema = _schema()
    mappings = [schema, *schema["$defs"].values()]
    return {key for mapping in mappings for key in mapping.get("properties", {})}


def keys_of(shape: str) -> tuple[str, ...]:
    """Return the keys of a shape, in the order of `shape`."""
    return tuple(_mapping(shape)["properties"])


def shapes() -> dict[str, tuple[str, ...]]:
    """Return shape -> its keys, outermost first."""
    schema = _schema()
    return {name: keys_of(name) for name in ("FileShape", *reversed(schema["$defs"]))}


def shape_at(loc: tuple[str | int, ...]) -> str:
    """Return the name of the shape that stands at a place ("" if it is no mapping of ours)."""
    return _at(loc)[1]


def example_of(loc: tuple[str | int, ...]) -> str:
    """Return an example for what stands at a place, as it may be written, or ""."""
    examples = _at(loc)[0].get("examples")
    if not examples:
        return ""
    return examples[0] if isinstance(examples[0], str) else json.dumps(examples[0])


def _at(loc: tuple[str | int, ...]) -> tuple[Node, str]:
    """Return what the schema says of a place, and the name of its shape, if it has one."""
    node, name = _schema(), "FileShape"
    for part in loc:
        node = _child(node, part)
        name = _shape_of(node)
        node = {**_mapping(name), **node} if name else node
    return node, name


def _shape_of(node: Node) -> str:
    """Return the name of the mapping that a node is, or may be (a value may stand alone)."""
    refs = [str(one.get("$ref", "")) for one in (node, *node.get("anyOf", []))]
    return next(filter(None, refs), "").rpartition("/")[2]


@cache
def _schema() -> Node:
    return json_schema()


def _mapping(shape: str) -> Node:
    schema = _schema()
    found: Node = schema if shape == "FileShape" else schema["$defs"].get(shape, {})
    return found


def _child(node: Node, part: str | int) -> Node:
    """Return the schema of a key or an item."""
    if isinstance(part, int):
        found = node.get("items", {})
    else:
        free = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
        found = node.get("properties", {}).get(part) or next(filter(None, free), {})
    return found if isinstance(found, dict) else {}


def _tidied(node: Any) -> Any:  # noqa: ANN401  JSON
    """Return the schema without pydantic's titles, nulls and noise, defaults with their units."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidied(value) for key, value in node.items() if not _is_noise(key, value)}
    kinds = [kind for kind in tidy.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        tidy.pop("anyOf")
        tidy = {**kinds[0], **tidy}
    if tidy.get("pattern") == units.DURATION_PATTERN and "default" in tidy:
        tidy["default"] = units.shown(tidy["default"])
    if tidy.get("pattern") == units.SHARE_PATTERN and "default" in tidy:
        tidy["default"] = units.shown_share(tidy["default"])
    if tidy.get("pattern") == units.SIZE_PATTERN and "default" in tidy:
        tidy["default"] = units.shown_size(tidy["default"])
    return tidy


def _is_noise(key: str, value: object) -> bool:
    is_empty = value in (None, "") or isinstance(value, (dict, list))
    return (key == "title" and isinstance(value, str)) or (key == "default" and is_empty)


if __name__ == "__main__":
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
