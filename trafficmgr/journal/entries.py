"""What the journal holds and what it says when it can't: events, states, and one kind of error.

The journal does not read the bytes that it keeps. Whoever writes an event or a state knows how to
read it again; here they are only ordered, durable, and in step with each other.
"""

import json
from typing import Any

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.noun import Noun


class JournalError(TrafficmgrError):
    """The journal could not be opened, read or written; nothing of the request was kept."""


class Entry(Noun):
    """One observed event, as it goes into the journal.

    Attributes:
        at: The event's own time: seconds on CLOCK_BOOTTIME, comparable within one `boot_id` only.
        boot_id: The boot of this machine in which it was observed.
        endpoint: The endpoint that it concerns; "" concerns all of them.
        kind: The name of the event's class, for people and filters ("GroupReady").
        event: The event as JSON.
    """

    at: float
    boot_id: str
    endpoint: str
    kind: str
    event: bytes


class Stored(Noun):
    """An entry in its place: `seq` only grows and is never given twice.

    `wall` is when it was written, as ISO 8601 in UTC. It is for display only: wall clocks jump.
    """

    seq: int
    wall: str
    entry: Entry

    def as_plain(self) -> dict[str, Any]:
        """Return it ready for JSON, as `trafficmgr events` shows it."""
        return {
            "seq": self.seq,
            "wall": self.wall,
            "endpoint": self.entry.endpoint,
            "kind": self.entry.kind,
            "event": json.loads(self.entry.event),
        }


class Kept(Noun):
    """What a controller starts from.

    Attributes:
        states: Endpoint (or another name that the controller chose) -> its newest state.
        last_seq: The seq of the last event ever written, 0 if there was none.
        dropped_through: Events up to this seq were compacted away. With 0 a re-fold of all events
            gives `states`; above it only the states know what came before.
    """

    states: dict[str, bytes]
    last_seq: int
    dropped_through: int = 0
