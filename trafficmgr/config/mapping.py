"""What every mapping of the YAML file has in common, and the short forms that people write.

A mapping refuses unknown keys, and the text under a key is its documentation. Some helpers are for
what pydantic has no word for: a mapping of which exactly one key says what is meant (`chosen`), and
a value that may stand alone in place of a mapping (`or_alone`, `or_switch`).
"""

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from trafficmgr.config.problems import UnfitError


class Shape(BaseModel):
    """A mapping: unknown keys are refused, the text under a key is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def defaults(noun: type[msgspec.Struct]) -> dict[str, Any]:
    """Return what the core takes for each field that is left out."""
    return {field.name: field.default for field in msgspec.structs.fields(noun)}


def chosen(shape: Shape, *keys: str, add: str) -> str:
    """Return which one of the keys is written.

    Args:
        shape: The mapping.
        keys: Those that exclude each other.
        add: What to write when none of them is there.

    Raises:
        UnfitError: None is, or several are.
    """
    found = [key for key in keys if getattr(shape, key) is not None]
    if not found:
        raise UnfitError(f"has neither {' nor '.join(keys)}", f"add {add}")
    if len(found) > 1:
        raise UnfitError(f"has both {' and '.join(found)}", "leave one of them")
    return found[0]


def or_alone(key: str) -> Any:  # noqa: ANN401  what pydantic's BeforeValidator takes
    """Return a reader that takes a value that stands alone for `{key: value}`."""

    def read(value: object) -> object:
        return value if isinstance(value, dict) else {key: value}

    return read


def or_switch(value: object) -> object:
    """Take `true` for a mapping that has nothing written, and `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class AlsoAlone:
    """Shows editors that a value may stand alone in place of the mapping.

    Args:
        alone: The JSON Schema of such a value.
    """

    def __init__(self, **alone: object) -> None:
        self._alone = alone

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return both forms."""
        return {"anyOf": [self._alone, handler(core)]}
