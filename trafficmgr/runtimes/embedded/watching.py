"""Learning at once that a group ended by itself: a pidfd of each shim in the event loop.

The shim goes last, after it wrote exit.json, so its end is the container's. Ends that happen
while nobody listens wait in a queue. A group that is being stopped is forgotten first.
"""

import asyncio
import os

from trafficmgr.runtimes.contract import GroupState, GroupStatus
from trafficmgr.runtimes.embedded import identity
from trafficmgr.runtimes.embedded.folders import GroupFolder


class Watch:
    """The groups whose end is of interest, and the ends that were not yet told."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[GroupStatus] = asyncio.Queue()
        self._pidfds: dict[str, list[int]] = {}

    def add(self, group: GroupFolder) -> None:
        """Watch a group that was seen running; nothing happens if it is watched already."""
        if group.group in self._pidfds:
            return
        self._pidfds[group.group] = []
        for container in group.containers():
            found = container.identity()
            pidfd = identity.open_pidfd(found.shim) if found is not None else None
            if pidfd is None:
                self._report(group)
                return
            self._pidfds[group.group].append(pidfd)
            asyncio.get_running_loop().add_reader(pidfd, self._report, group)

    def forget(self, group: str) -> None:
        """Watch it no longer, and tell nobody what it did."""
        for pidfd in self._pidfds.pop(group, ()):
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Let go of all groups."""
        for group in tuple(self._pidfds):
            self.forget(group)

    def _report(self, group: GroupFolder) -> None:
        """Queue how the group ended, once."""
        self._settle(group.group)
        status = group.status()
        if status is not None and status.state is GroupState.exited:
            self.ended.put_nowait(status)

    def _settle(self, group: str) -> None:
        """Drop the descriptors but stay deaf to `add`: an end is told once."""
        self.forget(group)
        self._pidfds[group] = []
