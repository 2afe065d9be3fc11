"""What the admin API asks of the house behind it, and what it may be told instead of an answer.

The API knows nothing of endpoints, rollouts or groups. It turns a request into one call of a
`House` and the answer into JSON. Everything a `House` returns is ready for JSON as it stands; the
shapes are made in admin/views.py and shown by cli/show.py.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.operator import Verb
from trafficmgr.runtimes.contract import ExecSession, LogQuery


class UnknownNameError(TrafficmgrError, LookupError):
    """Somebody asked for an endpoint or a group that there is none of; the text names it."""


class Groups(Protocol):
    """What is inside the groups. Raises as a `House` does, and `RuntimeFailure` (404)."""

    def logs(
        self, group: str, query: LogQuery, *, since_s: float | None, is_previous: bool
    ) -> AsyncIterator[bytes]:
        """Yield what a group's containers wrote, in whole lines; also of one that is gone.

        Args:
            group: The group.
            query: Which lines; its `since` is not looked at.
            since_s: Only lines of so many last seconds; None is all.
            is_previous: Of the group whose place this one took.
        """
        ...

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool
    ) -> ExecSession:
        """Run a command inside a container; "" is the first one."""
        ...

    async def stats(self, endpoint: str, group: str | None) -> dict[str, Any]:
        """Return what the containers of an endpoint, or of one group, have used."""
        ...

    async def show(self, endpoint: str, group: str | None) -> dict[str, Any]:
        """Return an endpoint's groups, or one, with their containers and counted events."""
        ...


class House(Protocol):
    """The running service, as operators see it.

    Every method may raise `UnknownNameError` (answered with 404), `NotPossibleNowError` (409) or
    another `TrafficmgrError` (503); their texts reach the operator as they are.
    """

    @property
    def groups(self) -> Groups:
        """Return the way into the groups."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the service and all endpoints as they are now."""
        ...

    async def events(
        self, endpoint: str | None, after: int, limit: int, *, has_checkpoints: bool = False
    ) -> list[dict[str, Any]]:
        """Return events, oldest first.

        Args:
            endpoint: Only what concerns this endpoint; None is everything.
            after: With 0 the last `limit` events; else the first `limit` after this seq.
            limit: At most so many.
            has_checkpoints: Whether what gates judge by is among them, as it is kept every 10 s.
        """
        ...

    def rollouts(self, endpoint: str | None) -> list[dict[str, Any]]:
        """Return the rollouts that are kept, oldest first."""
        ...

    def why(self, endpoint: str) -> list[str]:
        """Return in sentences what the endpoint waits for now."""
        ...

    async def ask(self, verb: Verb, endpoint: str, *, replicas: int | None = None) -> str:
        """Do what an operator asks for; return a sentence that says what happens.

        Args:
            verb: What is asked.
            endpoint: Of whom.
            replicas: Of `scale`: how many groups there shall be.
        """
        ...

    async def plan(self, path: Path, data: bytes) -> dict[str, Any]:
        """Return what another config would change; `data` is what its file holds.

        Raises:
            ConfigError: It can't be used (422).
        """
        ...

    async def apply(self, path: Path, data: bytes) -> dict[str, Any]:
        """Change the config, all of it or nothing; return what that changed.

        Raises:
            ConfigError: It can't be used (422).
            NotPossibleNowError: It changes what needs a restart.
        """
        ...

    async def stop(self, *, groups: bool) -> str:
        """Begin to end the service, with `groups` its groups too; return a sentence."""
        ...
