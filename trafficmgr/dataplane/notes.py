"""A worker's log lines: one per change of state, on stderr, where the supervisor picks them up.

structlog stays out of the data plane: it would double the time that a worker takes to start.
"""

import asyncio
import contextlib
import sys
import traceback
from typing import Any

_EVERY_S = 1.0


def note(event: str, **pairs: object) -> None:
    """Write `event key=value ...` (STYLE.md, Logging); values with spaces are quoted."""
    line = " ".join((event, *(f"{key}={_shown(value)}" for key, value in pairs.items())))
    with contextlib.suppress(OSError):  # whoever read it is gone; traffic goes on
        print(line, file=sys.stderr, flush=True)  # noqa: T201  a worker's log is its stderr


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if not text or " " in text or "\n" in text else text


class Mishaps:
    """Counts exceptions that nobody expected, and writes at most one per second.

    They are defects of ours. The connection that met one is closed by the loop; the worker stays.
    """

    def __init__(self) -> None:
        self.count = 0
        self._next_at = 0.0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an exception from the loop (`loop.set_exception_handler`)."""
        self.count += 1
        now = loop.time()
        if now < self._next_at:
            return
        self._next_at = now + _EVERY_S
        error = context.get("exception")
        where = "".join(traceback.format_exception(error)) if error is not None else ""
        note("mishap", count=self.count, message=context.get("message", ""), trace=where)
