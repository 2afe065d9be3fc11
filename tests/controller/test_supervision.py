"""What the supervisor says of its workers, as events."""

import asyncio
import json
import socket
from pathlib import Path

from trafficmgr.controller.link import Link
from trafficmgr.controller.supervision import Supervision
from trafficmgr.core.events import Event, WorkerEnded, WorkerStarted

LINES = (
    {"is": "hello", "slots": 1, "listen": {}},
    {"is": "worker_ended", "slot": 0, "start_id": "0-a", "at": 3.0, "how": "SIGKILL"},
    {"is": "worker_started", "slot": 0, "start_id": "0-b", "pid": 1, "at": 3.1},
    {"is": "caught_up"},
)


async def test_a_new_controller_hears_who_ended_and_who_was_started(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in LINES))
        told: list[Event] = []

        async def tell(event: Event) -> None:
            told.append(event)

        supervision = await Supervision.attached(ours.detach(), lambda: 5.0)
        link = Link(state_dir=tmp_path, tell=tell, clock=lambda: 5.0)
        async with asyncio.timeout(10):
            await supervision.catch_up(tell, link)
        supervision.close()

    assert told == [
        WorkerEnded(at=5.0, slot=0, start_id="0-a", reaped_at=3.0),
        WorkerStarted(at=5.0, slot=0, start_id="0-b"),
    ]
