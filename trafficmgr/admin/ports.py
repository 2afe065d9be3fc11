"""What the admin API asks of the house behind it, and what it may be told instead of an answer.

The API knows nothing of endpoints, rollouts or groups. It turns a request into one call of a
`House` and the answer into JSON. Everything a `House` returns is ready for JSON as it stands; the
shapes are made in admin/views.py and shown by cli/show.py.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from trafficmgr.core.errors import TrafficmgrError


class UnknownNameError(TrafficmgrError, LookupError):
    """Somebody asked for an endpoint or a group that there is none of; the text names it."""


class House(Protocol):
    """The running service, as operators see it.

    Every method may raise `UnknownNameError` (answered with 404), `NotPossibleNowError` (409) or
    another `TrafficmgrError` (503); their texts reach the operator as they are.
    """

    def status(self) -> dict[str, Any]:
        """Return the service and all endpoints as they are now."""
        ...

    async def events(self, endpoint: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Return events, oldest first.

        Args:
            endpoint: Only what concerns this endpoint; None is everything.
            after: With 0 the last `limit` events; else the first `limit` after this seq.
            limit: At most so many.
        """
        ...

    def rollouts(self, endpoint: str | None) -> list[dict[str, Any]]:
        """Return the rollouts that are kept, oldest first."""
        ...

    async def promote(self, endpoint: str) -> str:
        """Take the rollout's next step now; return a sentence that says what happens."""
        ...

    async def abort(self, endpoint: str) -> str:
        """Undo the rollout now; return a sentence that says what happens."""
        ...

    def logs(self, group: str, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the group's containers wrote, in whole lines; with `follow` until it ends."""
        ...

    async def stop(self, *, groups: bool) -> str:
        """Begin to end the service, with `groups` its groups too; return a sentence."""
        ...
