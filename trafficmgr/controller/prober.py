"""An ear: probes every group that is meant to stay, and tells when its readiness changes.

One task per group. While a group is not ready, each new reason for it is told as well. A failure
that took longer than its own timeout says more about our lag than about the group, and is
discarded. A group without a probe in its template is ready when its port takes a connection.
"""

import asyncio
from contextlib import suppress

import aiohttp

from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.events import GroupReady, GroupUnready
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.health import Health
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import HttpCheck, Probe, Revision, TcpCheck

LAG_S = 0.5
"""A probe that overran its timeout by more than this was delayed by us."""

OK = range(200, 300)


class Prober:
    """Keeps one probing task for each group that is started and not given up."""

    def __init__(self, *, tasks: asyncio.TaskGroup, tell: Tell, clock: Clock) -> None:
        self._tasks = tasks
        self._tell = tell
        self._clock = clock
        self._probing: dict[str, asyncio.Task[None]] = {}

    def look(self, fleet: Fleet) -> None:
        """Begin and end probing as the state demands."""
        wanted = {
            group.id: (state, group)
            for state in fleet.endpoints.values()
            for group in state.groups
            if group.phase is GroupPhase.started and not group.is_retiring
        }
        for gone in self._probing.keys() - wanted.keys():
            self._probing.pop(gone).cancel()
        for fresh in wanted.keys() - self._probing.keys():
            state, group = wanted[fresh]
            probe = probe_of(state.revisions[group.revision], state.port_of(group.revision))
            self._probing[fresh] = self._tasks.create_task(
                self._watch(state, group, probe), name=f"probe {fresh}"
            )

    async def _watch(self, state: EndpointState, group: Group, probe: Probe) -> None:
        """Probe one group until cancelled."""
        health, known_trouble = Health(is_ready=group.is_ready), ""
        timeout = aiohttp.ClientTimeout(total=probe.timeout_s)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                begun = self._clock()
                trouble = await _tried(session, group.address, probe)
                took_s = self._clock() - begun
                if trouble and took_s > probe.timeout_s + LAG_S:
                    continue
                known, health = health, health.after(passed=not trouble, probe=probe)
                is_news = not health.is_ready and trouble not in {"", known_trouble}
                if health.is_ready != known.is_ready or is_news:
                    await self._tell_edge(state.name, group.id, trouble)
                    known_trouble = trouble
                await asyncio.sleep(max(0.0, probe.every_s - took_s))

    async def _tell_edge(self, endpoint: str, group: str, trouble: str) -> None:
        now = self._clock()
        if trouble:
            await self._tell(GroupUnready(at=now, endpoint=endpoint, group=group, reason=trouble))
        else:
            await self._tell(GroupReady(at=now, endpoint=endpoint, group=group))


def probe_of(revision: Revision, port: int) -> Probe:
    """Return the readiness probe of a revision's groups."""
    written = (c.readiness for c in revision.template.containers if c.readiness is not None)
    return next(written, None) or Probe(check=TcpCheck(port=port))


async def _tried(session: aiohttp.ClientSession, address: str, probe: Probe) -> str:
    """Try once; return "" or what went wrong, in a few words."""
    try:
        match probe.check:
            case HttpCheck(port=port, path=path):
                url = f"http://{address}:{port}{path}"
                async with session.get(url, allow_redirects=False) as response:
                    return "" if response.status in OK else f"GET {path} answered {response.status}"
            case TcpCheck(port=port):
                async with asyncio.timeout(probe.timeout_s):
                    _, writer = await asyncio.open_connection(address, port)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
                return ""
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g}s"
    except (aiohttp.ClientError, OSError) as error:
        return _few_words(error)


def _few_words(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return "connection refused" if isinstance(cause, ConnectionRefusedError) else str(cause)
