"""Read a configuration file: settings that can be worked with, or every problem at once.

Four steps, each in a file of its own: `document` (YAML with positions), `shape` (keys and
values), `checks` (what must hold between them), `translate`. A wrong shape does not hide what the
checks find in the rest of the file: the wrong parts are left out and the rest is checked. Of all
that a file names only certificates are looked at: nothing else is wrong before it is needed.
"""

import copy
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trafficmgr.config import checks, checks_http, schema, translate
from trafficmgr.config.document import NO_VALUE, Document, Loc, bytes_of, read
from trafficmgr.config.problems import ConfigError, Problem, Span
from trafficmgr.config.settings import Settings
from trafficmgr.config.shape import FileShape
from trafficmgr.config.wording import Fault, fault_of, where

__all__ = ["ConfigError", "Look", "bytes_of", "load"]

UNCHECKED = frozenset({"ttl", "ttl_grace", "update", "rollout", "drain", "affinity"})
"""Keys of an endpoint without which the rest can still be checked: their defaults break nothing."""


class Look(StrEnum):
    """Which certificates are looked at.

    `there` is for a file that is only checked, perhaps where no key has any place. `needed` is
    for one that is about to be served, `never` for one that was accepted before: a certificate that
    is just being replaced must not keep a controller from starting.
    """

    never = "never"
    there = "there"
    needed = "needed"


def load(path: Path, data: bytes | None = None, *, certificates: Look = Look.there) -> Settings:
    """Return the settings in a file, or in `data` as if the file had it.

    Args:
        path: The file.
        data: What it held, if it was read already.
        certificates: Whether those that it names must be right, and be there.

    Raises:
        ConfigError: The file can't be used; the text has every problem, with its place and what
            to write instead. The command line shows it and exits 2.
    """
    document = read(path, data)
    if not isinstance(document.data, dict):
        text = "the file is not a mapping"
        raise ConfigError([document.problem(Span(1, 1), text, "see config/example.yaml")])
    file, faults, broken = _shaped(document)
    faults += checks.faults_of(file, broken)
    if certificates is not Look.never:
        folder, are_needed = path.absolute().parent, certificates is Look.needed
        faults += checks_http.certificate_faults(file, folder, are_needed=are_needed)
    problems = [*document.problems, *(_problem(fault, document) for fault in faults)]
    if problems:
        raise ConfigError(problems)
    return translate.settings_of(file, path)


def _shaped(document: Document) -> tuple[FileShape, list[Fault], frozenset[str]]:
    """Return as much of the file as has the right shape, and what is wrong with the rest."""
    faults = {loc: _unread(loc, document) for loc in document.unread}
    try:
        file = FileShape.model_validate(document.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            fault = fault_of(detail, document)
            is_covered = fault.loc in faults or _follows(detail, document)
            if fault.is_harmless or not is_covered:
                faults[fault.loc] = fault
        file, broken = _what_is_sound(document, list(faults.values()))
    else:
        broken = frozenset()
    return file, list(faults.values()), broken


def _follows(detail: ErrorDetails, document: Document) -> bool:
    """Whether a mapping only misses what one of its keys, which has no value, may be about."""
    return detail["type"] == "value_error" and any(
        loc[:-1] == detail["loc"] for loc in document.unread
    )


def _what_is_sound(document: Document, faults: list[Fault]) -> tuple[FileShape, frozenset[str]]:
    """Return the file without what is wrong, and the sections that are not whole.

    Without a mistyped key its mapping may lack one that it needs. That is no fault of its own, so
    nothing is said of it, and all around it goes, too.
    """
    sound, broken = _sound_part(document.data, faults)
    try:
        return FileShape.model_validate(sound), broken
    except ValidationError as error:
        errors = [fault_of(detail, document) for detail in error.errors(include_url=False)]
        follow = [replace(fault, is_harmless=False) for fault in errors]
        sound, broken_too = _sound_part(sound, follow)
        return FileShape.model_validate(sound), broken | broken_too


def _unread(loc: Loc, document: Document) -> Fault:
    predicate, hint = document.unread[loc]
    if predicate == NO_VALUE and (example := schema.example_of(loc)):
        hint = f"write {example}, or remove the line"
    return Fault(loc, f"{where(loc, document)} {predicate}", hint, on_key=True)


def _sound_part(data: Any, faults: list[Fault]) -> tuple[Any, frozenset[str]]:  # noqa: ANN401  YAML holds anything
    """Return the data without what is wrong: a key, a whole endpoint, or a whole section.

    The second part names the sections that had to go or are not whole.
    """
    sound, broken = copy.deepcopy(data), set()
    for fault in faults:
        match fault.loc:
            case loc if fault.is_harmless:
                _drop(sound, loc)
            case ("endpoints", _, key, *_) if key in UNCHECKED:
                _drop(sound, fault.loc[:3])
            case ("endpoints", _, *_):
                _drop(sound, fault.loc[:2])
                broken.add("endpoints")
            case (section, *_):
                _drop(sound, fault.loc[:1])
                broken.add(str(section))
    sound.setdefault("endpoints", {})
    return sound, frozenset(broken)


def _drop(data: Any, loc: Loc) -> None:  # noqa: ANN401  YAML holds anything
    """Remove a key, if it is still there."""
    for part in loc[:-1]:
        match data:
            case dict() if part in data:
                data = data[part]
            case list() if isinstance(part, int):
                data = data[part]
            case _:
                return
    if isinstance(data, dict):
        data.pop(loc[-1], None)


def _problem(fault: Fault, document: Document) -> Problem:
    place = document.place(fault.loc)
    is_missing = fault.loc not in document.places
    span = place.key if fault.on_key or is_missing else place.value
    return document.problem(span, fault.text, fault.hint)
