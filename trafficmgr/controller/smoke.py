"""The smoke test: a handful of requests through the front door to the preview, before any weight.

They take the way that users' requests take: over a new connection to each address at which the
workers listen, to the preview's host name. An answer is right when its status and body are as
asked for, and the revision that gave it, which the proxy names on previews, is the one meant.

A wrong answer fails the test. A connection that a worker of ours refuses or drops says nothing
about the revision (promise 12): it is tried again until an answer comes or nobody wants it any
more, and the core keeps the time for that.
"""

import asyncio
import re
from collections.abc import Sequence

import structlog

from trafficmgr.controller.answer import Answer, NoAnswerError, Trouble, answer_to
from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.commands import AskSmoke
from trafficmgr.core.events import SmokeEnded
from trafficmgr.core.gating import SmokeRequest
from trafficmgr.core.template import short
from trafficmgr.wire.http_response import REVISION_FIELD

REVISION_HEADER = REVISION_FIELD.decode()
"""What the proxy says on a preview host only: the revision of the group that answered."""

RETRY_S = 0.5

BODY_BYTES = 1024 * 1024

PER_WORKER = 4
"""The kernel spreads connections over the workers' sockets by a hash of their ports, and nobody can
ask for one of them. With 4 connections for each worker, any given one is met by each request with a
probability of 98 % (1 - e^-4)."""

MOST = 32
"""Connections at once and request, so that a machine with many cores does not storm a preview."""

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  nothing is bound here

log = structlog.get_logger()


class SmokeTest:
    """Asks the preview through the workers."""

    def __init__(self, *, tell: Tell, clock: Clock, doors: Sequence[str], workers: int) -> None:
        """Make it.

        Args:
            tell: Told how each leg ended.
            clock: Seconds on CLOCK_BOOTTIME.
            doors: Where workers listen for HTTP, as "host:port"; they need not be reachable so.
            workers: How many of them there are.
        """
        self._tell = tell
        self._clock = clock
        self._doors = tuple(map(reachable, doors))
        self._times = min(MOST, PER_WORKER * workers)

    async def make(self, command: AskSmoke) -> None:
        """Ask everything, one request after the other, and tell how it ended."""
        wrong = await self._asked(command)
        await self._tell(
            SmokeEnded(
                at=self._clock(),
                endpoint=command.endpoint,
                rollout=command.rollout,
                leg=command.leg,
                is_success=not wrong,
                reason=wrong,
            )
        )

    async def _asked(self, command: AskSmoke) -> str:
        if not self._doors:
            return f"there is no HTTP listener through which {command.host} could be asked"
        for request in command.smoke.requests:
            for door in self._doors:
                if wrong := await self._asked_often(command, request, door):
                    return wrong
        return ""

    async def _asked_often(self, command: AskSmoke, request: SmokeRequest, door: str) -> str:
        """Ask over several connections at once; return what was wrong with the first bad answer."""
        async with asyncio.TaskGroup() as asking:
            asked = [
                asking.create_task(_insisted(command, request, door)) for _ in range(self._times)
            ]
        return next((wrong for task in asked if (wrong := task.result())), "")


async def _insisted(command: AskSmoke, request: SmokeRequest, door: str) -> str:
    """Ask until there is an answer; return what is wrong with it."""
    asked = f"GET {request.path} on {command.host}"
    is_said = False
    while True:
        try:
            answer = await answer_to(
                "GET",
                f"http://{door}{request.path}",
                timeout_s=command.smoke.timeout_s,
                most_bytes=BODY_BYTES,
                headers={"Host": command.host},
            )
        except NoAnswerError as error:
            if error.trouble in {Trouble.late, Trouble.garbled}:
                return f"{asked}: {error}"
            if not is_said:
                log.warning(
                    "smoke_delayed", endpoint=command.endpoint, door=door, reason=str(error)
                )
            is_said = True
            await asyncio.sleep(RETRY_S)
        else:
            wrong = wrong_with(answer, request, command.revision)
            return f"{asked} {wrong}" if wrong else ""


def wrong_with(answer: Answer, request: SmokeRequest, revision: str) -> str:
    """Return what is wrong with an answer, as the end of a sentence; "" if nothing is."""
    if answer.status != request.status:
        return f"answered {answer.status}, not {request.status}"
    by = answer.headers.get(REVISION_HEADER, "")
    if by != revision:
        who = f"revision {short(by)}" if by else "no revision that is named"
        return f"was answered by {who}, not by {short(revision)}"
    if not re.search(request.body, answer.body.decode(errors="replace")):
        return f"answered {answer.status} with a body that does not match {request.body!r}"
    return ""


def reachable(door: str) -> str:
    """Return where to connect to for an address that is listened on."""
    host, _, port = door.rpartition(":")
    return f"{LOOPBACK_OF.get(host, host)}:{port}"
