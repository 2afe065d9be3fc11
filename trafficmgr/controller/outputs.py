"""Where is found what hooks wrote: in the logs of their task group, or with who made their call.

Logs outlive a group for `keep_logs`. What a call was answered is remembered by this controller
only, so it is lost with it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from trafficmgr.controller.proofs import OUTPUT_BYTES
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.gating import HookRun
from trafficmgr.runtimes.contract import LogQuery

LINES = LogQuery(tail=200)
"""More than fit into a receipt, unless they are very short."""


class Logs(Protocol):
    """The part of a runtime that is used here."""

    def logs(self, group: str, query: LogQuery) -> AsyncIterator[bytes]:
        """Yield what a group wrote."""
        ...


class HookOutputs:
    """Finds the end of what a hook wrote (controller/receipts.py: `Outputs`)."""

    def __init__(self, *, runtime: Logs, answered: Callable[[str, str], str | None]) -> None:
        """Make it.

        Args:
            runtime: Keeps the logs of groups.
            answered: Tells of a rollout and a hook what its call was answered (None: not known).
        """
        self._runtime = runtime
        self._answered = answered

    async def of(self, rollout: str, hook: HookRun) -> str:
        """Return the end of what a hook wrote; see `Outputs`."""
        if hook.group:
            return await self._logged(hook.group)
        answer = self._answered(rollout, hook.name)
        if answer is None:
            raise TrafficmgrError("the controller that made the call is gone, or had no answer.")
        return answer

    async def _logged(self, group: str) -> str:
        end = b""
        chunks = self._runtime.logs(group, LINES)
        try:
            async for chunk in chunks:
                end = (end + chunk)[-OUTPUT_BYTES:]
        finally:
            if isinstance(chunks, AsyncGenerator):  # it ends with us and not some time later
                await chunks.aclose()
        return end.decode(errors="replace")
