"""The simulated runtime: groups start late, never, or unnoticed; they die, flap and stop slowly.

It keeps the truth about processes. What the controller gets to know of it goes through a start's or
stop's answer, through `listed`, and through deaths and probes that are told with a delay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trafficmgr.core import events
from trafficmgr.core.commands import StartGroup
from trafficmgr.core.model import GroupPhase

if TYPE_CHECKING:
    from simulation.world import World

PROBE_S = 1.0


@dataclass
class Process:
    """A group as it is, listed until it is stopped. `seen_running` is what `list` shows.

    `result` is how its work ended: True is success, None is that it did not come to its end.
    `hook` names the hook whose task it is ("": it is a replica).
    """

    group: str
    endpoint: str
    revision: str
    address: str
    hook: str = ""
    is_running: bool = True
    is_healthy: bool = False
    seen_running: bool = True
    result: bool | None = None


class Engine:
    """All groups of the machine."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.processes: dict[str, Process] = {}

    # -- starting and stopping ----------------------------------------------------------------

    def start(
        self, command: StartGroup, *, is_wanted: Callable[[], bool], tell: Callable[..., None]
    ) -> None:
        """Start a group: its processes appear at some moment, the answer comes at another.

        Args:
            command: What to start.
            is_wanted: Whether the hand that asked still lives and was not told to stop.
            tell: Takes the answer as an event type and its fields.
        """
        world, faults, rng = self._world, self._world.faults, self._world.rng
        known = self.processes.get(command.group.id)
        if known is not None and (known.is_running or known.hook):
            self._answer_again(known, is_wanted, tell)
            return
        kind = world.natures[command.revision.id].kind
        if command.group.hook:
            kind = "starts fail" if world.is_flawed(world.flaws.task_start_fails) else "task"
        took_s = rng.uniform(0.1, 1.5)
        if world.happens(faults.start_slow):
            took_s += rng.uniform(1.0, 30.0)
        if world.happens(faults.start_unknown):
            self._retry(command, is_wanted, tell, took_s)
        elif world.happens(faults.start_never):
            world.when_calm(self._retry_quietly, command, is_wanted, tell)
        elif kind == "starts fail" or world.happens(faults.start_fails):
            failed = {"reason": "no such file"}
            world.later(took_s, self._answer, is_wanted, tell, events.GroupStartFailed, failed)
        else:
            world.later(took_s * rng.random(), self._appear, command, is_wanted)
            is_lie = kind != "task" and world.happens(faults.start_lies)
            answer = events.GroupStartFailed if is_lie else events.GroupStarted
            told = {"reason": "timed out"} if is_lie else {}
            world.later(took_s, self._answer, is_wanted, tell, answer, told)

    def stop(self, group: str, *, is_wanted: Callable[[], bool], tell: Callable[..., None]) -> None:
        """End a group and everything it holds."""
        world = self._world
        slow_s = world.rng.uniform(1.0, 20.0) if world.happens(world.faults.stop_slow) else 0.3
        world.later(slow_s * world.rng.random(), self._vanish, group, is_wanted)
        world.later(slow_s, self._answer, is_wanted, tell, events.GroupStopped, {})

    def _answer_again(
        self, known: Process, is_wanted: Callable[[], bool], tell: Callable[..., None]
    ) -> None:
        """Say of a group that was started before how that went; it is never started again."""
        has_ended = not known.is_running and known.result is None
        kind = events.GroupStartFailed if has_ended else events.GroupStarted
        told = {"reason": "it has ended and is never started again"} if has_ended else {}
        self._world.later(0.1, self._answer, is_wanted, tell, kind, told)
        if known.result is not None:
            self._world.later(0.2, self._seen_complete, known)

    def _retry(
        self,
        command: StartGroup,
        is_wanted: Callable[[], bool],
        tell: Callable[..., None],
        after_s: float,
    ) -> None:
        told = {"reason": "engine away"}
        asking_s = self._world.rng.uniform(0.1, 2.0)
        self._world.later(asking_s, self._answer, is_wanted, tell, events.GroupStartDelayed, told)
        self._world.later(after_s, self._retry_quietly, command, is_wanted, tell)

    def _retry_quietly(
        self, command: StartGroup, is_wanted: Callable[[], bool], tell: Callable[..., None]
    ) -> None:
        if is_wanted():
            self.start(command, is_wanted=is_wanted, tell=tell)

    def _answer(
        self,
        is_wanted: Callable[[], bool],
        tell: Callable[..., None],
        kind: type[events.Event],
        told: dict[str, str],
    ) -> None:
        world = self._world
        if not is_wanted():
            return
        is_lagging = world.faults.slow_controller > 0 and world.rng.random() < 0.4
        world.later(world.rng.uniform(0.0, 3.0) if is_lagging else 0.0, tell, kind, told)

    def _appear(self, command: StartGroup, is_wanted: Callable[[], bool]) -> None:
        if not is_wanted():
            return
        group = command.group
        process = Process(
            group.id, command.endpoint, group.revision, group.address, hook=group.hook
        )
        self.processes[group.id] = process
        if process.hook:
            self._world.witness.task_begins(process)
            self._work(process)
        else:
            self._live(process)

    def _vanish(self, group: str, is_wanted: Callable[[], bool]) -> None:
        if is_wanted():
            self.processes.pop(group, None)

    # -- living -------------------------------------------------------------------------------

    def _live(self, process: Process) -> None:
        """Let a new process do what its revision is like."""
        world, rng = self._world, self._world.rng
        nature = world.natures[process.revision]
        if nature.kind == "dies at once":
            world.later(rng.uniform(0.0, 0.5), self.die, process)
        elif nature.kind != "never ready":
            world.later(rng.uniform(0.2, 2.0), self.turn, process, True)
        if nature.kind == "crash loop":
            world.later(rng.uniform(1.0, 8.0), self.die, process)
        elif nature.kind == "completes":
            world.later(rng.uniform(2.0, 40.0), self.complete, process)
        elif nature.kind == "goes bad":
            ill = self.die if rng.random() < 0.5 else self._sicken
            world.later(nature.bad_after_s, ill, process)

    def _work(self, process: Process) -> None:
        """Let the task of a hook do its work, in one way or another."""
        world, luck, flaws = self._world, self._world.luck, self._world.flaws
        if world.is_flawed(flaws.task_listens):
            world.later(luck.uniform(0.0, 2.0), self.turn, process, True)
        if world.is_flawed(flaws.task_hangs):
            return
        if world.is_flawed(flaws.task_vanishes):
            world.later(luck.uniform(0.0, 6.0), self.die, process)
        else:
            is_success = not world.is_flawed(flaws.task_fails)
            world.later(luck.uniform(0.0, 6.0), self.complete, process, is_success)

    def _sicken(self, process: Process) -> None:
        self.turn(process, is_healthy=False)

    def turn(self, process: Process, is_healthy: bool) -> None:
        """Pass or fail probes from now on."""
        if process.is_running:
            process.is_healthy = is_healthy
            self._world.later(PROBE_S, self.probe, process.group)

    def die(self, process: Process) -> None:
        """End by itself. Who lists or watches may see it later."""
        world = self._world
        if not process.is_running or self.processes.get(process.group) is not process:
            return
        process.is_running = process.is_healthy = False
        lag_s = world.rng.uniform(0.0, 5.0) if world.happens(world.faults.list_lags) else 0.05
        world.later(lag_s, self._seen_dead, process)

    def complete(self, process: Process, is_success: bool | None = None) -> None:
        """Come to the end of its work; who lists or watches may see it later."""
        world = self._world
        if not process.is_running or self.processes.get(process.group) is not process:
            return
        process.is_running = process.is_healthy = False
        process.result = world.rng.random() < 0.7 if is_success is None else is_success
        lag_s = world.rng.uniform(0.0, 5.0) if world.happens(world.faults.list_lags) else 0.05
        world.later(lag_s, self._seen_complete, process)

    def _seen_complete(self, process: Process) -> None:
        process.seen_running = False
        if self.processes.get(process.group) is not process:
            return
        if self._is_being_started(process):  # its start is told before its end
            self._world.later(0.5, self._seen_complete, process)
        else:
            self._world.tell(
                events.GroupCompleted,
                endpoint=process.endpoint,
                group=process.group,
                reason="exit code 0" if process.result else "exit code 3",
                is_success=bool(process.result),
            )

    def _seen_dead(self, process: Process) -> None:
        process.seen_running = False
        if self.processes.get(process.group) is not process:
            return
        if process.hook and self._is_being_started(process):
            self._world.later(0.5, self._seen_dead, process)
        else:
            self._world.tell(
                events.GroupEnded,
                endpoint=process.endpoint,
                group=process.group,
                reason="killed by SIGKILL",
            )

    def _is_being_started(self, process: Process) -> bool:
        """Whether the controller has not heard of its start yet."""
        brain = self._world.brain
        state = brain.mind.fleet.endpoints.get(process.endpoint) if brain is not None else None
        groups = () if state is None else state.groups
        return any(g.id == process.group and g.phase is GroupPhase.wanted for g in groups)

    def listed(self) -> dict[str, Process]:
        """Return group -> what there is of it; `seen_running` is what one may look at."""
        return dict(self.processes)

    def any_running(self) -> Process | None:
        """Return some running process."""
        running = [p for p in self.processes.values() if p.is_running]
        return self._world.rng.choice(running) if running else None

    # -- the prober ---------------------------------------------------------------------------

    def probe(self, group: str) -> None:
        """Tell the controller of a readiness that differs from what it knows."""
        process = self.processes.get(group)
        brain = self._world.brain
        if process is None or brain is None or not brain.is_acting:
            return
        state = brain.mind.fleet.endpoints.get(process.endpoint)
        known = next((g for g in state.groups if g.id == group), None) if state else None
        if known is None or known.phase is not GroupPhase.started or known.is_retiring:
            return
        if known.is_ready and not process.is_healthy:
            self._world.tell(
                events.GroupUnready, endpoint=process.endpoint, group=group, reason="503"
            )
        elif process.is_healthy and not known.is_ready:
            self._world.tell(events.GroupReady, endpoint=process.endpoint, group=group)
