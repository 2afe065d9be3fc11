"""The calls of hooks: told as begun, then made, once; what was answered is kept for the receipt.

The order is the promise. `HookStarted` is journaled before anything is sent, so a controller that
dies from there on leaves behind that the call may have been made, and nobody makes it again without
being asked to. A call that nobody wants any more is cancelled by the hands.
"""

import msgspec

from trafficmgr.controller import faults
from trafficmgr.controller.answer import NoAnswerError, Trouble, answer_to
from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.commands import CallHook
from trafficmgr.core.events import HookEnded, HookStarted

OUTPUT_BYTES = 4096
"""How much of an answer is kept: enough for a sentence or a list of what was done."""

MOST_OUTPUTS = 200
"""Of how many calls: a receipt takes its own within seconds."""

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods that tell whom the call is about; a GET's server would not look at a body."""


class Calls:
    """Makes the calls of hooks."""

    def __init__(self, *, tell: Tell, clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._outputs: dict[tuple[str, str], str] = {}

    async def make(self, command: CallHook) -> None:
        """Tell that it begins, make it once, and tell how it ended."""
        endpoint, rollout, hook = command.endpoint, command.rollout, command.hook
        await self._tell(
            HookStarted(at=self._clock(), endpoint=endpoint, rollout=rollout, hook=hook)
        )
        faults.passed("after hook started")
        trouble = await self._made(command)
        faults.passed("after hook called")
        await self._tell(
            HookEnded(
                at=self._clock(),
                endpoint=endpoint,
                rollout=rollout,
                hook=hook,
                is_success=not trouble,
                reason=trouble,
            )
        )

    def output(self, rollout: str, hook: str) -> str | None:
        """Return how the answer to a call began; None if there was none, or none that is kept."""
        return self._outputs.get((rollout, hook))

    async def _made(self, command: CallHook) -> str:
        """Make the call; return what was wrong with it, "" if nothing."""
        has_body = command.call.method.upper() in WITH_BODY
        try:
            answer = await answer_to(
                command.call.method,
                command.call.url,
                timeout_s=command.timeout_s,
                most_bytes=OUTPUT_BYTES,
                headers={"Content-Type": "application/json"} if has_body else None,
                data=_about(command) if has_body else None,
            )
        except NoAnswerError as error:
            is_sent = error.trouble is not Trouble.refused
            return f"{error}; whether it did anything is not known" if is_sent else str(error)
        self._keep(command, answer.body)
        return "" if answer.is_ok else f"it answered {answer.status}"

    def _keep(self, command: CallHook, body: bytes) -> None:
        key = (command.rollout, command.hook)
        self._outputs.pop(key, None)
        self._outputs[key] = body.decode(errors="replace")
        if len(self._outputs) > MOST_OUTPUTS:
            del self._outputs[next(iter(self._outputs))]


def _about(command: CallHook) -> bytes:
    return msgspec.json.encode(
        {
            "endpoint": command.endpoint,
            "revision": command.revision,
            "rollout": command.rollout,
            "hook": command.hook,
        }
    )
