"""Points where a test may kill the controller (docs/decisions/0007).

A controller whose environment has `TRAFFICMGR_FAULT=FOLDER` reports each point that it passes to
the files of that folder, and is killed by SIGKILL at the one that was asked for. Without the
variable a point is a comparison with None. Nothing else of the product knows of this.

    armed    a line `N NAME` for each kill, in this order: the N-th point of that name counts from
             the kill before, NAME `*` is any. An empty file only counts; without the file nothing
             is reported.
    passed   a line with the names of each point passed, and `killed` at each kill

A fault strikes once: the next controller of the same supervisor has the same environment, and goes
on with the next line.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

KILLED = "killed"
SEPARATOR = " | "

_folder = os.environ.get("TRAFFICMGR_FAULT")


def passed(point: str, kinds: Iterable[str] = ()) -> None:
    """Take note that a point was passed, and end here if that was asked for.

    Args:
        point: Where: "before start".
        kinds: What it concerns, if that has kinds: the point then has a name for each,
            "before append GroupReady". Not looked at unless somebody wants to know.
    """
    if _folder is not None:
        _pass(
            Path(_folder), " | ".join(f"{point} {kind}" for kind in dict.fromkeys(kinds)) or point
        )


def _pass(folder: Path, names: str) -> None:
    try:
        faults = (folder / "armed").read_text().splitlines()
    except FileNotFoundError:
        return
    with (folder / "passed").open("a+") as file:
        file.write(f"{names}\n")
        file.seek(0)
        if _is_due(faults, file.read().splitlines()):
            file.write(f"{KILLED}\n")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def _is_due(faults: list[str], lines: list[str]) -> bool:
    """Whether the last line is the point at which the present fault strikes."""
    kills = [n for n, line in enumerate(lines) if line == KILLED]
    if len(kills) >= len(faults):
        return False
    number, _, name = faults[len(kills)].partition(" ")
    since = lines[kills[-1] + 1 :] if kills else lines
    hits = [name in {"*", *line.split(SEPARATOR)} for line in since]
    return hits[-1] and sum(hits) == int(number)
