"""What the supervisor is told, what it refuses, and how it speaks."""

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spec:
    """What to run.

    Attributes:
        state_dir: Where the lock and the record of children live; made if it is missing.
        dns: Addresses to answer DNS on, UDP and TCP. Port 0 picks a free one (tests).
        http: Addresses to proxy HTTP on.
        https: Addresses to proxy HTTP over TLS on.
        slots: How many workers; each gets sockets of its own.
        backlog: How many connections may wait in the accept queue of one socket.
        controller_argv: The controller's program; `--supervisor-fd FD` is added.
        worker_argv: A worker's program; `--slot`, `--start-id`, `--sockets`, `--backlog` are added.
    """

    state_dir: Path
    dns: tuple[tuple[str, int], ...]
    http: tuple[tuple[str, int], ...]
    slots: int
    backlog: int
    controller_argv: tuple[str, ...]
    worker_argv: tuple[str, ...]
    https: tuple[tuple[str, int], ...] = ()


class CannotStart(Exception):  # noqa: N818  reads as the sentence it carries (STYLE.md, Errors)
    """Nothing was started; the text is one sentence that says why and what to do."""


def say(event: str, **pairs: object) -> None:
    """Write one line about a state change to stderr: the event, then key=value pairs.

    A stderr that is gone (a closed terminal, a full disk) must not end the data plane.
    """
    words = [event, *(f"{key}={_quoted(value)}" for key, value in pairs.items())]
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(" ".join(words) + "\n")
        sys.stderr.flush()


def boottime() -> float:
    """Return seconds since boot, suspend included: the one clock of all our processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _quoted(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text)
