"""Learning at once that a group ended by itself: a pidfd of each shim in the event loop.

The shim goes last, after it wrote exit.json, so its end is the container's. What that means for the
group is looked up then; the others are watched on if it means nothing. Ends that happen while
nobody listens wait in a queue. A group that is being stopped is forgotten first.
"""

import asyncio
import os

from trafficmgr.runtimes.contract import GroupState, GroupStatus
from trafficmgr.runtimes.embedded import identity
from trafficmgr.runtimes.embedded.folders import GroupFolder
from trafficmgr.runtimes.embedded.states import group_status


class Watch:
    """The groups whose end is of interest, and the ends that were not yet told."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[GroupStatus] = asyncio.Queue()
        self._pidfds: dict[str, set[int]] = {}

    def add(self, group: GroupFolder) -> None:
        """Watch a group that was seen running; nothing happens if it is watched already."""
        if group.group in self._pidfds:
            return
        self._pidfds[group.group] = set()
        has_ended = False
        for container in group.containers():
            found = container.identity()
            pidfd = identity.open_pidfd(found.shim) if found is not None else None
            if pidfd is None:
                has_ended = True
                continue
            self._pidfds[group.group].add(pidfd)
            asyncio.get_running_loop().add_reader(pidfd, self._ended, group, pidfd)
        if has_ended:
            self._report(group)

    def forget(self, group: str) -> None:
        """Watch it no longer, and tell nobody what it did."""
        for pidfd in self._pidfds.pop(group, ()):
            _let_go(pidfd)

    def close(self) -> None:
        """Let go of all groups."""
        for group in tuple(self._pidfds):
            self.forget(group)

    def _ended(self, group: GroupFolder, pidfd: int) -> None:
        """Note the end of one container."""
        self._pidfds[group.group].discard(pidfd)
        _let_go(pidfd)
        self._report(group)

    def _report(self, group: GroupFolder) -> None:
        """Queue how the group ended, once, if it has."""
        status = group_status(group)
        if status is not None and status.state is not GroupState.running:
            self._settle(group.group)
            self.ended.put_nowait(status)

    def _settle(self, group: str) -> None:
        """Drop the descriptors but stay deaf to `add`: an end is told once."""
        self.forget(group)
        self._pidfds[group] = set()


def _let_go(pidfd: int) -> None:
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
