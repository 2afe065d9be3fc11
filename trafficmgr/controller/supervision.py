"""The controller's end of the socketpair to the supervisor: JSON lines, both ways.

The supervisor tells which slots there are and which workers ended, when it reaped them and how;
after each start of a controller it tells again what happened before, up to `caught_up`. Only then
may workers say hello: a worker whose end we have not heard of could otherwise be forgotten.
"""

import asyncio
import json
import socket
from typing import Any

import structlog

from trafficmgr.controller.link import Link
from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.events import WorkerEnded, WorkerStarted

log = structlog.get_logger()


class Supervision:
    """What the supervisor says and what it is asked to do."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: Clock
    ) -> None:
        self.slots = 0
        self.listen: dict[str, list[str]] = {}
        self._reader = reader
        self._writer = writer
        self._clock = clock

    @classmethod
    async def attached(cls, fd: int, clock: Clock) -> "Supervision":
        """Take over the inherited end and read the first line.

        Raises:
            ConnectionError: The supervisor is gone already.
        """
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        supervision = cls(reader, writer, clock)
        hello = await supervision._line()
        if hello is None or hello.get("is") != "hello":
            raise ConnectionError(f"the supervisor said {hello} instead of hello")
        supervision.slots = int(hello["slots"])
        supervision.listen = hello["listen"]
        return supervision

    async def catch_up(self, tell: Tell, link: Link) -> None:
        """Hear what happened while no controller was there."""
        while (line := await self._line()) is not None and line.get("is") != "caught_up":
            await self._hear(line, tell, link)

    async def listen_on(self, tell: Tell, link: Link) -> None:
        """Hear what happens from now on; returns when the supervisor is gone.

        Without it traffic, groups and workers go on, and so do we: the next `run` ends us.
        """
        while (line := await self._line()) is not None:
            await self._hear(line, tell, link)
        log.error("supervisor_gone", means="nobody replaces a process of ours that ends now")

    def restart_worker(self, start_id: str) -> None:
        """Let it kill and replace this worker, if it still is the one of its slot."""
        self._say({"do": "restart_worker", "start_id": start_id})

    def stop(self) -> None:
        """Let it end the service in order."""
        self._say({"do": "stop"})

    def close(self) -> None:
        """Let go of the socket."""
        self._writer.close()

    async def _hear(self, line: dict[str, Any], tell: Tell, link: Link) -> None:
        if line.get("is") == "worker_started":
            slot, start_id = line["slot"], line["start_id"]
            await tell(WorkerStarted(at=self._clock(), slot=slot, start_id=start_id))
        if line.get("is") != "worker_ended":
            return
        bye = link.farewells.pop(line["start_id"], None)
        log.info("worker_ended", slot=line["slot"], start_id=line["start_id"], how=line["how"])
        await tell(
            WorkerEnded(
                at=self._clock(),
                slot=line["slot"],
                start_id=line["start_id"],
                reaped_at=line["at"],
                is_clean=bye is not None,
                answered=bye.answered if bye else {},
            )
        )

    async def _line(self) -> dict[str, Any] | None:
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        if not line:
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def _say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
