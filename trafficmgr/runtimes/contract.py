"""What every runtime promises (DESIGN 8). tests/runtimes/conformance.py is this page as tests.

* Everything is idempotent by group id: starting a running group, or stopping one that is gone,
  changes nothing and raises nothing.
* A group is never changed in place, and never restarted by the runtime: the controller is the
  only restart owner. A group whose processes ended stays listed as `exited` until `stop`.
* Groups outlive the controller. A new controller adopts them by recorded identity.
"""

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.noun import Noun
from trafficmgr.core.template import GroupTemplate, ImageDigest


class RuntimeFailure(TrafficmgrError):  # noqa: N818  the name is DESIGN's (STYLE.md, Errors)
    """The runtime could not do what was wanted; the text says what and why."""


class RuntimeUnknownError(RuntimeFailure):
    """The engine can't be asked right now. Unknown is not failed (promise 12)."""


class GroupSpec(Noun):
    """All that a runtime must know to run a group.

    `address` is an IPv4 address of our allocator, `port` the one that is fronted. `instance`
    names this installation, so that two of them on one engine never touch each other's groups.
    """

    group: str
    instance: str
    endpoint: str
    revision: str
    address: str
    port: int
    template: GroupTemplate
    images: tuple[ImageDigest, ...]


class GroupState(StrEnum):
    """What the runtime sees of a group."""

    running = "running"
    exited = "exited"


class GroupStatus(Noun):
    """A group as the runtime sees it. `reason` says how it ended, in a few words."""

    group: str
    endpoint: str
    state: GroupState
    reason: str = ""
    pid: int | None = None


class Runtime(Protocol):
    """The one contract of all engines."""

    async def start(self, spec: GroupSpec) -> str:
        """Start the group and return the address it can be dialled at.

        Raises:
            RuntimeFailure: It could not be started; nothing of it is left running.
            RuntimeUnknownError: The engine could not be asked; try again.
        """
        ...

    async def stop(self, group: str) -> None:
        """End the group (SIGTERM, its grace, SIGKILL) and forget it; returns when it is gone."""
        ...

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return every group of this instance that the runtime knows."""
        ...

    def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield the status of a group whenever it ends by itself; never ends by itself."""
        ...

    def logs(self, group: str, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the group's containers wrote, oldest first, in chunks of whole lines.

        Raises:
            RuntimeFailure: There is no such group, or nothing of it is kept.
        """
        ...

    async def close(self) -> None:
        """Let go of everything held in this process. The groups run on."""
        ...
