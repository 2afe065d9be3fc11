"""What is wrong with the shape of a file, in words: pydantic's errors as faults for people.

Pydantic says where (a way from the root) and which rule; here it gets the names of STYLE.md: the
key, the endpoint or container around it, and what to write instead.
"""

import difflib
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from trafficmgr.config import later, schema
from trafficmgr.config.document import Document, Loc
from trafficmgr.config.problems import UnfitError

_KINDS = {
    "model_type": ("is not a mapping", "write its keys on lines of their own, indented"),
    "dict_type": ("is not a mapping", "write its keys on lines of their own, indented"),
    "list_type": ("is not a list", "write [{written}]"),
    "string_type": ("is not text", 'write it in quotes: "{written}"'),
    "int_type": ("is not a whole number", ""),
    "bool_type": ("is neither true nor false", "write true or false"),
    "float_type": ("is not a number", ""),
    "float_parsing": ("is not a number", ""),
    "too_short": ("is empty", ""),
    "string_too_short": ("is empty", ""),
    "greater_than_equal": ("is too small", "the smallest is {ge}"),
    "less_than_equal": ("is too large", "the largest is {le}"),
    "greater_than": ("is too small", "it must be more than {gt}"),
}
"""Pydantic's error type -> predicate and hint."""

_MAPPINGS = ("model_type", "dict_type")
"""Errors for which an example says more than a rule."""

_NEAR = 0.6
"""How alike two keys must be to be taken for each other; difflib's own default."""

_NEAR_ELSEWHERE = 0.85
"""Nearer than that for a key of another mapping: one letter too few or too many."""

_OWNERS = {
    "FileShape": "the top level",
    "ZoneShape": "a zone",
    "RegistryShape": "a registry",
    "EndpointShape": "an endpoint",
    "InitContainerShape": "a container",
    "ContainerShape": "a container",
    "VolumeShape": "a volume",
    "MountShape": "a mount",
    "EnvShape": "a variable",
    "ValueFromShape": '"value_from"',
    "EmptyDirShape": '"empty_dir"',
    "SecretShape": "a secret",
    "ProbeShape": '"readiness"',
    "LivenessShape": '"liveness"',
    "PreStopShape": '"pre_stop"',
    "StepShape": "a step",
    "GroupHttpShape": '"http"',
    "GroupTcpShape": '"tcp"',
    "CheckShape": "a check",
    "JsonCheckShape": 'the "http" of a check',
    "ProbeCheckShape": 'the "probe" of a check',
    "AfterHookShape": "a hook",
    "HookShape": "a hook",
    "CallShape": 'the "http" of a hook',
    "SmokeRequestShape": "a request",
    "HttpPolicyShape": 'the "http" of an endpoint',
    "FrontShape": 'the "http" at the top level',
    "PinShape": "a pin",
    "AccessLogShape": '"access_log"',
    "CertificateShape": "a certificate",
}
"""Shape -> what people call it, where that is not its key."""


_SINGULAR = {"endpoints": "endpoint", "registries": "registry", "secrets": "secret"}
"""Top-level key -> what each of the things below it is called, before its name."""

_NOUNS = {
    "containers": "container",
    "init_containers": "init container",
    "volumes": "volume",
    "checks": "check",
    "hooks": "hook",
}
"""Key of an endpoint -> what one of the things below it is called."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a place of the file; `on_key` points at the key, not at its value.

    `is_harmless` says that the rest of the file means the same without it.
    """

    loc: Loc
    text: str
    hint: str = ""
    on_key: bool = False
    is_harmless: bool = False


def fault_of(error: ErrorDetails, document: Document) -> Fault:
    """Return a shape error as a fault."""
    loc = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(loc, document)
        case "missing":
            return _missing_key(loc, document)
        case "literal_error":
            return _wrong_word(_as_written(loc, document), error, document)
        case _:
            return _unfit(loc, error, document)


def where(loc: Loc, document: Document) -> str:
    """Name a place for people: `"cpu" of "resources" of container "web"`."""
    if not loc:
        return "the file"
    around = next((n for n in range(len(loc), 0, -1) if _noun(loc[:n], document)), 0)
    noun = _noun(loc[:around], document)
    words = [_word(part) for part in reversed(loc[around:][-3:])]
    return " of ".join([*words, noun] if noun else words)


def _as_written(loc: Loc, document: Document) -> Loc:
    """Return the place without keys that only we put there: a value that stands alone has none."""
    while loc and loc not in document.places:
        loc = loc[:-1]
    return loc


def _unknown_key(loc: Loc, document: Document) -> Fault:
    key, shape = str(loc[-1]), schema.shape_at(loc[:-1])
    around = "at the top level" if len(loc) == 1 else f"in {where(loc[:-1], document)}"
    if key in later.LATER_KEYS.get(shape, ()):
        text = f"`{key}` {around} is not part of this version yet"
        return Fault(loc, text, "remove it", on_key=True, is_harmless=True)
    hint = later.hint_of(shape, key) or _nearest_key(key, shape)
    return Fault(loc, f'unknown key "{key}" {around}', hint, on_key=True, is_harmless=True)


def _nearest_key(key: str, shape: str) -> str:
    """Return which key was meant: the nearest one here, else the nearest one anywhere."""
    here = schema.keys_of(shape)
    near = difflib.get_close_matches(key.lower(), here, 1, _NEAR)
    if near:
        return f'did you mean "{near[0]}"?'
    for other, keys in schema.shapes().items():
        found = difflib.get_close_matches(key.lower(), keys, 1, _NEAR_ELSEWHERE)
        if found:
            owner = _OWNERS.get(other) or f'"{other.removesuffix("Shape").lower()}"'
            return f'did you mean "{found[0]}"? it belongs to {owner}'
    return f"known here: {', '.join(here)}"


def _missing_key(loc: Loc, document: Document) -> Fault:
    example = schema.example_of(loc)
    hint = f"add {loc[-1]}: {example}" if example else f"add {loc[-1]}"
    return Fault(loc, f'{where(loc[:-1], document)} has no "{loc[-1]}"', hint, on_key=True)


def _wrong_word(loc: Loc, error: ErrorDetails, document: Document) -> Fault:
    key, value = str(loc[-1]), error["input"]
    if str(value) in later.LATER_VALUES.get(key, ()):
        text = f"{where(loc, document)}: `{value}` is not part of this version yet"
    else:
        text = f"{where(loc, document)} is not a word that it takes"
    words = error["ctx"]["expected"].replace("'", "")
    return Fault(loc, text, later.VALUES_ELSEWHERE.get(str(value)) or f"write {words}")


def _unfit(loc: Loc, error: ErrorDetails, document: Document) -> Fault:
    context: dict[str, Any] = error.get("ctx", {})
    reason = context.get("error")
    is_key = bool(loc) and loc[-1] == "[key]"
    loc = loc[:-1] if is_key else _as_written(loc, document)
    predicate, hint = _KINDS.get(error["type"], (f"can't be used: {error['msg']}", ""))
    if isinstance(reason, UnfitError):
        predicate, hint, loc = reason.predicate, reason.hint, (*loc, *reason.at)
    written = document.place(loc).written
    if error["type"] == "int_type" and written.isdigit():
        hint = f"write it without quotes: {written}"
    if "{written}" in hint:
        hint = hint.replace("{written}", written) if written else ""
    for name, bound in context.items():
        hint = hint.replace(f"{{{name}}}", f"{bound:g}" if isinstance(bound, float) else str(bound))
    if error["type"] in _MAPPINGS or not hint:
        hint = _example(error["loc"]) or hint
    return Fault(loc, f"{where(loc, document)} {predicate}", hint, on_key=is_key)


def _example(loc: Loc) -> str:
    example = schema.example_of(loc) if loc else ""
    return f"write {example}" if example else ""


def _noun(loc: Loc, document: Document) -> str:
    """Return what a place is called if it has a name of its own, else ""."""
    called = ""
    match loc:
        case ("endpoints" | "registries" | "secrets" as kind, str(name)):
            called = f'{_SINGULAR[kind]} "{name}"'
        case ("zones", int(index)):
            called = _named("zone", index, document.at((*loc, "name")))
        case ("tls", "certificates", int(index)):
            called = f"certificate {index + 1}"
        case ("endpoints", str(name), "http", "pins", int(index)):
            called = f'pin {index + 1} of endpoint "{name}"'
        case (
            ("endpoints", _, "group", str(kind), int(index))
            | ("endpoints", _, "rollout", "gates", str(kind), int(index))
            | ("endpoints", _, "rollout", str(kind), _, int(index))
        ) if kind in _NOUNS:
            called = _named(_NOUNS[kind], index, document.at((*loc, "name")))
    return called


def _named(noun: str, index: int, name: object) -> str:
    return f'{noun} "{name}"' if isinstance(name, str) else f"{noun} {index + 1}"


def _word(part: str | int) -> str:
    return f"item {part + 1}" if isinstance(part, int) else f'"{part}"'
