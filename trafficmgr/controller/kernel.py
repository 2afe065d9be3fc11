"""An ear: asks the kernel whether clients still hold connections to a group that is to stop.

Only groups whose TTL is over are looked up, and only as long as they wait for it (DESIGN 6.1 c).
Source: Documentation/networking/proc_net_tcp.rst; state 01 is ESTABLISHED, addresses are hex in
host byte order.
"""

import asyncio
import socket
import sys
from pathlib import Path

from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core import retirement
from trafficmgr.core.events import DirectClientsGone
from trafficmgr.core.fleet import Fleet

LOOK_EVERY_S = 0.5
ESTABLISHED = "01"


class KernelWatch:
    """Tells when a group that waits for its direct clients has none left."""

    def __init__(self, *, tell: Tell, clock: Clock) -> None:
        self._fleet = Fleet()
        self._tell = tell
        self._clock = clock

    def look(self, fleet: Fleet) -> None:
        """Take note of the newest state."""
        self._fleet = fleet

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = self._clock()
            waiting = [
                (state.name, group)
                for state in self._fleet.endpoints.values()
                for group in state.groups
                if retirement.waits_for_kernel(group, state, now)
            ]
            if not waiting:
                continue
            connected = await asyncio.to_thread(connected_addresses)
            for endpoint, group in waiting:
                if group.address not in connected:
                    await self._tell(
                        DirectClientsGone(at=self._clock(), endpoint=endpoint, group=group.id)
                    )


def connected_addresses(table: Path = Path("/proc/net/tcp")) -> frozenset[str]:
    """Return every IPv4 address that one end of an established connection has."""
    found = set()
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED:
            found |= {fields[1], fields[2]}
    return frozenset(map(_address, found))


def _address(field: str) -> str:
    """Return "127.77.0.1" for "01004D7F:1F90"."""
    packed = int(field.partition(":")[0], 16).to_bytes(4, sys.byteorder)
    return socket.inet_ntoa(packed)
