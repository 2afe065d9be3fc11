"""What happened to a group, counted: the same thing again makes a count, not another line.

Made from the journal, so it outlives the group and the controller. The words are those that cloud
container instances use. Times are wall time, for display.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from trafficmgr.journal.entries import Stored

Plain = dict[str, Any]

NAMES = {
    "GroupStarted": "Started",
    "GroupStartFailed": "Failed",
    "GroupStartDelayed": "Delayed",
    "GroupReady": "Ready",
    "GroupUnready": "Unhealthy",
    "GroupEnded": "Ended",
    "GroupCompleted": "Completed",
    "GroupStopped": "Stopped",
}
"""Kind of a journaled event -> what users call it. No other concerns a single group."""

ENDS = frozenset({"Failed", "Ended", "Completed"})
"""How a group can come to its end by itself."""


class _OfGroup(msgspec.Struct):
    """The part of such an event that is shown."""

    group: str
    reason: str = ""


def by_group(stored: Iterable[Stored]) -> dict[str, list[Plain]]:
    """Return group -> its counted events, in the order in which each happened first."""
    counted: dict[str, dict[tuple[str, str], Plain]] = {}
    for one in stored:
        if one.entry.kind not in NAMES:
            continue
        event, name = msgspec.json.decode(one.entry.event, type=_OfGroup), NAMES[one.entry.kind]
        known = counted.setdefault(event.group, {}).setdefault(
            (name, event.reason),
            {"first": one.wall, "last": one.wall, "count": 0, "what": name, "why": event.reason},
        )
        known |= {"last": one.wall, "count": known["count"] + 1}
    return {group: list(events.values()) for group, events in counted.items()}


def end_of(events: Iterable[Plain]) -> Plain | None:
    """Return how a group came to its end by itself, or None if nothing is known of one."""
    ends = [one for one in events if one["what"] in ENDS]
    if not ends:
        return None
    last = max(ends, key=lambda one: str(one["last"]))
    return {"what": last["what"], "why": last["why"], "at": last["last"]}
