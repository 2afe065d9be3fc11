"""One look at a container: does it answer, does the port open, does the command end with 0?

What is seen is said in a few words: "" has passed, None is not known. It is not known when the
engine can't be asked or takes too long to begin (promise 12), and when we were late ourselves: a
failure that took longer than its own timeout says more about our lag than about the container.

What a command writes is thrown away: it could be a secret, and reasons go to the journal.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Protocol

import aiohttp

from trafficmgr.controller.ports import Clock
from trafficmgr.core.template import ExecCheck, HttpCheck, Probe, Revision, TcpCheck
from trafficmgr.runtimes.contract import ExecSession, RuntimeFailure, RuntimeUnknownError

LAG_S = 0.5
"""A probe that overran its timeout by more than this was delayed by us."""

BEGIN_S = 10.0
"""How long an engine may take to begin a command; that is no fault of the container."""

CLOSE_S = 5.0
"""How long letting go of a command may take; the next look is more important."""

OK = range(200, 300)

Seen = str | None
"""What a look has shown: "" has passed, words say what went wrong, None is not known."""


class Execs(Protocol):
    """The part of a runtime that probes need."""

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        """Run a command inside a container; see runtimes/contract.py."""
        ...


class Looks:
    """Looks at the containers of one group."""

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        runtime: Execs,
        clock: Clock,
        group: str,
        address: str,
    ) -> None:
        self._http = http
        self._runtime = runtime
        self._clock = clock
        self._group = group
        self._address = address

    async def at(self, container: str, probe: Probe) -> Seen:
        """Look once; takes as long as the probe's timeout at most, plus beginning a command."""
        match probe.check:
            case HttpCheck(port=port, path=path):
                return await self._within(probe.timeout_s, self._get(port, path))
            case TcpCheck(port=port):
                return await self._within(probe.timeout_s, self._open(port))
            case ExecCheck(command=command):
                return await self._run(container, command, probe.timeout_s)

    async def _within(self, timeout_s: float, attempt: Awaitable[str]) -> Seen:
        begun = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                trouble = await attempt
        except TimeoutError:
            trouble = f"no answer within {timeout_s:g}s"
        except (aiohttp.ClientError, OSError) as error:
            trouble = _few_words(error)
        if trouble and self._clock() - begun > timeout_s + LAG_S:
            return None
        return trouble

    async def _get(self, port: int, path: str) -> str:
        url = f"http://{self._address}:{port}{path}"
        async with self._http.get(url, allow_redirects=False) as response:
            return "" if response.status in OK else f"GET {path} answered {response.status}"

    async def _open(self, port: int) -> str:
        _, writer = await asyncio.open_connection(self._address, port)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return ""

    async def _run(self, container: str, command: tuple[str, ...], timeout_s: float) -> Seen:
        try:
            async with asyncio.timeout(BEGIN_S):
                session = await self._runtime.exec(self._group, container, command)
        except (RuntimeUnknownError, TimeoutError):
            return None
        except RuntimeFailure as failure:
            return str(failure)
        try:
            return await self._within(timeout_s, _ended(session, command[0]))
        except RuntimeUnknownError:
            return None
        except RuntimeFailure as failure:
            return str(failure)
        finally:
            with suppress(TimeoutError, RuntimeFailure):
                async with asyncio.timeout(CLOSE_S):
                    await session.close()


async def _ended(session: ExecSession, name: str) -> str:
    """Wait for the end of a command that gets no input and whose output nobody reads."""
    await session.send(b"")
    async for _ in session.output():
        pass
    code = await session.exit_code()
    return f"{name} ended with exit code {code}" if code else ""


def _few_words(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return "connection refused" if isinstance(cause, ConnectionRefusedError) else str(cause)


def readiness_of(revision: Revision, port: int) -> dict[str, Probe]:
    """Return container -> readiness probe; all of them have to pass.

    A template without one has its fronted port opened, under the name "".
    """
    written = {c.name: c.readiness for c in revision.template.containers if c.readiness}
    return written or {"": Probe(check=TcpCheck(port=port))}


def liveness_of(revision: Revision) -> dict[str, Probe]:
    """Return container -> liveness probe."""
    return {c.name: c.liveness for c in revision.template.containers if c.liveness}
