"""What a request's query says: whole numbers, seconds and switches, or a sentence that it doesn't.

Whatever is wrong is answered with 400.
"""

import math
from typing import TypeVar

from aiohttp import web

T = TypeVar("T")


def number_of(request: web.Request, key: str, default: T, *, most: int | None = None) -> int | T:
    """Return a whole number of the query, or the default if it is not there."""
    text = request.query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or (most is not None and int(text) > most):
        limit = "" if most is None else f", at most {most}"
        raise web.HTTPBadRequest(
            text=f"{key}={text!r} is not possible: it must be a whole number, 0 or more{limit}."
        )
    return int(text)


def seconds_of(request: web.Request, key: str) -> float | None:
    """Return seconds of the query, or None if they are not there."""
    text = request.query.get(key)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise web.HTTPBadRequest(
            text=f"{key}={text!r} is not possible: it must be a number of seconds, 0 or more."
        )
    return seconds


def switch_of(request: web.Request, key: str) -> bool:
    """Return whether the query switches something on."""
    return request.query.get(key, "0") not in {"", "0", "false"}


def name_of(request: web.Request, key: str) -> str | None:
    """Return a name of the query; an empty one is none."""
    return request.query.get(key) or None
