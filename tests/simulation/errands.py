"""The hands of one controller that go outside: calls of hooks, and the requests of the smoke test.

They follow `controller.calls` and `controller.hands`: a call is told as started, that is journaled
and acted upon, and only then is it made; what is not wanted any more is dropped. The controller may
die between any two of these. An answer may come just when it is dropped.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from trafficmgr.core import events
from trafficmgr.core.commands import AnyCommand, AskSmoke, CallHook

if TYPE_CHECKING:
    from simulation.brain import Brain
    from simulation.world import World

Told = dict[str, Any]


class Errands:
    """Everything that is asked of somebody outside, by the key of its command."""

    def __init__(self, brain: "Brain", world: "World") -> None:
        self._brain = brain
        self._world = world
        self._under_way: dict[str, object] = {}

    def drop_unwanted(self, commands: tuple[AnyCommand, ...]) -> None:
        """Let go of what nobody wants any more."""
        if self._under_way:
            wanted = {one.key for one in commands if isinstance(one, CallHook | AskSmoke)}
            for key in self._under_way.keys() - wanted:
                self._world.say("{} is dropped", key)
                del self._under_way[key]

    def go(self, command: CallHook | AskSmoke) -> bool:
        """Whether it was not under way; it is now."""
        if command.key in self._under_way:
            return False
        token = self._under_way[command.key] = object()
        if isinstance(command, CallHook):
            self._world.later(0.0, self._announce, command, token)
        else:
            self._ask(command, token)
        return True

    def _is_open(self, key: str, token: object) -> bool:
        return not self._brain.is_dead and self._under_way.get(key) is token

    # -- calls --------------------------------------------------------------------------------

    def _announce(self, command: CallHook, token: object) -> None:
        if not self._is_open(command.key, token):
            return
        world = self._world
        told: Told = {
            "endpoint": command.endpoint,
            "rollout": command.rollout,
            "hook": command.hook,
        }
        begun = events.HookStarted(at=world.controller_clock(), **told)
        self._brain.tell(begun, then=partial(self._make, command, token, told))
        if world.is_flawed(world.flaws.said_again):
            world.later_again(events.HookStarted, told)

    def _make(self, command: CallHook, token: object, told: Told) -> None:
        """Its beginning is journaled and was acted upon."""
        world, luck, flaws = self._world, self._world.luck, self._world.flaws
        if world.dies(self._brain, "before a call") or not self._is_open(command.key, token):
            return
        world.say("{} is made", command.key)
        world.witness.called(command)
        if world.dies(self._brain, "after a call"):
            return
        if world.is_flawed(flaws.call_hangs):
            answered = {"is_success": False, "reason": "no answer in time"}
            world.later(command.timeout_s, self._answer, command, token, told | answered)
            return
        after_s = luck.uniform(0.05, 2.0)
        if world.is_flawed(flaws.call_slow):
            after_s += luck.uniform(1.0, 25.0)
        is_failure = world.is_flawed(flaws.call_fails)
        answered = {"is_success": not is_failure, "reason": "it answered 500" * is_failure}
        world.later(after_s, self._answer, command, token, told | answered)

    def _answer(self, command: CallHook, token: object, told: Told) -> None:
        world = self._world
        if self._brain.is_dead:
            return
        if self._is_open(command.key, token) or world.is_flawed(world.flaws.call_late):
            world.tell(events.HookEnded, **told)
            if world.is_flawed(world.flaws.said_again):
                world.later_again(events.HookEnded, told)

    # -- smoke --------------------------------------------------------------------------------

    def _ask(self, command: AskSmoke, token: object) -> None:
        world, luck, flaws = self._world, self._world.luck, self._world.flaws
        world.witness.asking(command)
        world.say("smoke leg {} asks {} at {}", command.leg, command.revision, command.host)
        told: Told = {"endpoint": command.endpoint, "rollout": command.rollout, "leg": command.leg}
        if world.is_flawed(flaws.smoke_astray):
            astray = {"leg": luck.choice((command.leg - 1, 7, 8)), "is_success": True}
            late_s = luck.uniform(0.0, 2.0)
            world.later(late_s, partial(world.tell, events.SmokeEnded, **told | astray))
        after_s = luck.uniform(0.1, 2.0)
        if world.is_flawed(flaws.smoke_slow):
            after_s += luck.uniform(1.0, 20.0)
        is_failure = world.is_flawed(flaws.smoke_fails)
        answered = {"is_success": not is_failure, "reason": "answered 500, not 200" * is_failure}
        world.later(after_s, self._met, command, token, told | answered)

    def _met(self, command: AskSmoke, token: object, told: Told) -> None:
        world = self._world
        if not self._is_open(command.key, token):
            return
        world.witness.answered(command, is_success=bool(told["is_success"]))
        world.tell(events.SmokeEnded, **told)
        if world.is_flawed(world.flaws.said_again):
            world.later_again(events.SmokeEnded, told)
