"""Scenario transcripts: a small world around the pure core, told as a story.

A file in tests/scenarios says what happens from outside ("10s registry shows v2") and what the
world is like ("groups are ready after 1s"); below a line of dashes stands what followed from it.
The world answers each command after a delay, workers acknowledge tables, and DNS is asked all the
time, so that an address is answered until the very moment at which its worker withdraws it.
"""

import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from support.story_lines import told
from support.story_words import NAME, TEMPLATE, revision, seconds, settings
from trafficmgr.controller.loop import Mind
from trafficmgr.core import events, retirement
from trafficmgr.core.commands import (
    AnyCommand,
    AskSmoke,
    CallHook,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import Verdict, VerdictKind
from trafficmgr.core.model import EndpointSettings
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState

__all__ = ["NAME", "TEMPLATE", "Story", "World", "revision", "seconds", "settings", "tell"]


@dataclass
class World:
    """Everything outside the core, with delays in seconds."""

    start_s: float = 1.0
    ready_s: float = 1.0
    ack_s: float = 0.1
    kernel_s: float = 0.5
    stop_s: float = 0.5
    task_s: float = 5.0
    call_s: float = 1.0
    smoke_s: float = 0.5
    slots: int = 2
    failing: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    is_registry_away: bool = False
    hung: set[int] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)


class Story:
    """Runs a fleet of one endpoint through virtual time and writes down what changes."""

    def __init__(self, world: World, given: EndpointSettings) -> None:
        self.world = world
        self.mind = Mind(Fleet())
        self.lines: list[str] = []
        self.now = 0.0
        self.boot = 1
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._done: set[str] = set()
        self._starts = count(1)
        self._workers: dict[int, tuple[str, Table | None]] = {}
        self.is_controller_away = False
        self.start_controller()
        self.feed(events.SettingsApplied(at=0.0, endpoint=NAME, settings=given))
        for slot in range(world.slots):
            self.connect(slot)

    @property
    def fleet(self) -> Fleet:
        """The whole state now."""
        return self.mind.fleet

    @property
    def state(self) -> EndpointState:
        """The endpoint's state now."""
        return self.fleet.endpoints[NAME]

    # -- time ---------------------------------------------------------------------------------

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Let something happen after a delay."""
        heapq.heappush(self._agenda, (self.now + delay_s, next(self._order), what))

    def run_until(self, end: float) -> None:
        """Let time pass up to and including `end`."""
        while True:
            wake = self.mind.wake_at() if not self.is_controller_away else None
            first = self._agenda[0][0] if self._agenda else None
            due = min((at for at in (wake, first) if at is not None), default=None)
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            if first is not None and first <= due:
                heapq.heappop(self._agenda)[2]()
            else:
                for event in self.mind.due(self.now):
                    self.feed(event)

    # -- the controller -----------------------------------------------------------------------

    def start_controller(self) -> None:
        """A new controller takes over: hands forget what they did, the journal does not."""
        self._done.clear()
        self.is_controller_away = False
        self.feed(
            events.ControllerStarted(
                at=self.now,
                boot_id=f"boot-{self.boot}",
                slots=self.world.slots,
                address_pool="127.77.0.0/16",
            )
        )

    def feed(self, event: events.Event) -> None:
        """Hand one event to the core, note what changed, carry out what is wanted."""
        if self.is_controller_away:
            return
        before = self.fleet
        commands = self.mind.handle(event)
        self.lines += told(self.now, before, self.fleet)
        for command in commands:
            if command.key not in self._done:
                self._done.add(command.key)
                self._carry_out(command)
        self._look_at_kernel()

    def _look_at_kernel(self) -> None:
        for group in self.state.groups if NAME in self.fleet.endpoints else ():
            key = f"kernel {group.id}"
            due = retirement.waits_for_kernel(group, self.state, self.now)
            if due and key not in self._done and group.id not in self.world.busy:
                self._done.add(key)
                self.later(self.world.kernel_s, lambda g=group.id: self._is_clear(g))  # type: ignore[misc]

    def _is_clear(self, group: str) -> None:
        self.feed(events.DirectClientsGone(at=self.now, endpoint=NAME, group=group))

    def _carry_out(self, command: AnyCommand) -> None:
        world = self.world
        match command:
            case StartGroup():
                self.later(world.start_s, lambda: self._started(command))
            case StopGroup():
                gone = command.group
                self.later(
                    world.stop_s,
                    lambda: self.feed(events.GroupStopped(at=self.now, endpoint=NAME, group=gone)),
                )
            case PublishTable():
                for slot in self._workers:
                    self.later(world.ack_s, lambda s=slot: self._apply(s, command.table))  # type: ignore[misc]
            case RestartWorker():
                self.lines.append(f"{self.now:7.1f}  worker of slot {command.slot} is restarted")
                self.kill_worker(command.slot)
            case CallHook():
                self._call(command)
            case AskSmoke():
                self._smoke(command)

    def _call(self, command: CallHook) -> None:
        """The hand tells first, and calls then."""
        told = {"endpoint": NAME, "rollout": command.rollout, "hook": command.hook}
        self.lines.append(f"{self.now:7.1f}  hook {command.hook} is called")
        self.feed(events.HookStarted(at=self.now, **told))
        if command.hook not in self.world.hanging:
            self.later(self.world.call_s, lambda: self._called(command.hook, told))

    def _called(self, name: str, told: dict[str, str]) -> None:
        is_success = name not in self.world.failing
        reason = "" if is_success else "POST answered 500"
        self.feed(events.HookEnded(at=self.now, is_success=is_success, reason=reason, **told))

    def _smoke(self, command: AskSmoke) -> None:
        is_success = "smoke" not in self.world.failing
        reason = "" if is_success else "GET / answered 500, and should answer 200"
        self.lines.append(f"{self.now:7.1f}  smoke asks {command.revision} at {command.host}")
        self.later(
            self.world.smoke_s,
            lambda: self.feed(
                events.SmokeEnded(
                    at=self.now,
                    endpoint=NAME,
                    rollout=command.rollout,
                    leg=command.leg,
                    is_success=is_success,
                    reason=reason,
                )
            ),
        )

    def judge(self, gate: str, kind: VerdictKind) -> None:
        """A gate has a verdict on the present stage."""
        rollout = self.state.rollout
        assert rollout is not None, "there is nothing to judge"
        verdict = Verdict(gate=gate, kind=kind, at=self.now, why="so it was measured")
        self.feed(
            events.GateJudged(
                at=self.now,
                endpoint=NAME,
                rollout=rollout.id,
                stage=rollout.stage,
                verdict=verdict,
            )
        )

    def keep_evidence(self) -> None:
        """The judge journals what it judges by."""
        rollout = self.state.rollout
        assert rollout is not None, "there is nothing to judge"
        kept = Evidence(at=self.now, stage=rollout.stage)
        self.feed(
            events.EvidenceKept(at=self.now, endpoint=NAME, rollout=rollout.id, evidence=kept)
        )

    def _started(self, command: StartGroup) -> None:
        group = command.group.id
        if self.world.is_registry_away:
            self.feed(
                events.GroupStartDelayed(at=self.now, endpoint=NAME, group=group, reason="away")
            )
            self.later(self.world.start_s, lambda: self._started(command))
            return
        self.feed(events.GroupStarted(at=self.now, endpoint=NAME, group=group))
        if command.group.hook:
            if command.group.hook not in self.world.hanging:
                self.later(self.world.task_s, lambda: self._task_done(command))
        elif command.revision.id not in self.world.broken:
            self.later(
                self.world.ready_s,
                lambda: self.feed(events.GroupReady(at=self.now, endpoint=NAME, group=group)),
            )

    def _task_done(self, command: StartGroup) -> None:
        is_success = command.group.hook not in self.world.failing
        self.feed(
            events.GroupCompleted(
                at=self.now,
                endpoint=NAME,
                group=command.group.id,
                reason=f"exit code {int(not is_success)}",
                is_success=is_success,
            )
        )

    # -- workers ------------------------------------------------------------------------------

    def connect(self, slot: int) -> None:
        """The worker of a slot says hello with the newest table on disk."""
        table = self.state.table if self.state.table.generation else None
        self._workers[slot] = (f"{slot}-{next(self._starts)}", table)
        self._hello(slot)

    def _hello(self, slot: int) -> None:
        start_id, table = self._workers[slot]
        generations = {} if table is None else {NAME: table.generation}
        self.feed(
            events.WorkerConnected(
                at=self.now, slot=slot, start_id=start_id, generations=generations
            )
        )
        self._apply(slot, self.state.table)

    def hello_all(self) -> None:
        """Every worker reconnects to a new controller."""
        for slot in self._workers:
            self._hello(slot)

    def kill_worker(self, slot: int) -> None:
        """The worker of a slot dies without a word; its successor is there a second later."""
        start_id, _ = self._workers.pop(slot)
        self.world.hung.discard(slot)
        self.feed(events.WorkerEnded(at=self.now, slot=slot, start_id=start_id, reaped_at=self.now))
        self.later(1.0, lambda: self.connect(slot))

    def _apply(self, slot: int, table: Table) -> None:
        if slot not in self._workers or slot in self.world.hung or not table.generation:
            return
        start_id, old = self._workers[slot]
        if old is not None and old.generation > table.generation:
            return
        self._workers[slot] = (start_id, table)
        withdrawn = old.groups() - table.groups() if old is not None else frozenset()
        self.feed(
            events.TableApplied(
                at=self.now,
                endpoint=NAME,
                slot=slot,
                start_id=start_id,
                generation=table.generation,
                answered=dict.fromkeys(withdrawn, self.now),
                http_busy=tuple(sorted(withdrawn & self.world.busy)),
            )
        )


# -- the language ---------------------------------------------------------------------------------


def _revision_comes(story: Story, label: str) -> None:
    story.feed(events.RevisionSeen(at=story.now, endpoint=NAME, revision=revision(label)))


def _controller_dies(story: Story) -> None:
    story.is_controller_away = True


def _controller_returns(story: Story) -> None:
    story.start_controller()
    story.hello_all()


def _machine_restarts(story: Story) -> None:
    story.boot += 1
    story.start_controller()
    for slot in list(story._workers):
        story.kill_worker(slot)


SENTENCES: dict[str, Callable[..., None]] = {
    r"registry shows (\S+)": _revision_comes,
    r"(\S+) dies": lambda s, g: s.feed(
        events.GroupEnded(at=s.now, endpoint=NAME, group=g, reason="killed by SIGKILL")
    ),
    r"(\S+) completes": lambda s, g: s.feed(
        events.GroupCompleted(
            at=s.now, endpoint=NAME, group=g, reason="exit code 0", is_success=True
        )
    ),
    r"(\S+) completes with an error": lambda s, g: s.feed(
        events.GroupCompleted(
            at=s.now, endpoint=NAME, group=g, reason="exit code 3", is_success=False
        )
    ),
    r"the engine goes away": lambda s: s.feed(events.EngineLost(at=s.now, reason="refused")),
    r"the engine is back": lambda s: s.feed(events.EngineFound(at=s.now)),
    r"(\S+) fails its probes": lambda s, g: s.feed(
        events.GroupUnready(at=s.now, endpoint=NAME, group=g, reason="503")
    ),
    r"(\S+) recovers": lambda s, g: s.feed(events.GroupReady(at=s.now, endpoint=NAME, group=g)),
    r"(\S+) is broken": lambda s, label: s.world.broken.add(label),
    r"(\S+) stays busy": lambda s, g: s.world.busy.add(g),
    r"operator aborts": lambda s: s.feed(events.AbortAsked(at=s.now, endpoint=NAME)),
    r"operator promotes fully": lambda s: s.feed(
        events.PromoteAsked(at=s.now, endpoint=NAME, is_full=True)
    ),
    r"operator pauses": lambda s: s.feed(events.PauseAsked(at=s.now, endpoint=NAME)),
    r"operator resumes": lambda s: s.feed(events.ResumeAsked(at=s.now, endpoint=NAME)),
    r"operator rolls back": lambda s: s.feed(events.RollbackAsked(at=s.now, endpoint=NAME)),
    r"operator retries": lambda s: s.feed(events.RetryAsked(at=s.now, endpoint=NAME)),
    r"operator scales to (\d+)": lambda s, n: s.feed(
        events.ScaleAsked(at=s.now, endpoint=NAME, replicas=int(n))
    ),
    r"operator promotes": lambda s: s.feed(events.PromoteAsked(at=s.now, endpoint=NAME)),
    r"endpoint is removed": lambda s: s.feed(events.EndpointRemoved(at=s.now, endpoint=NAME)),
    r"registry goes away": lambda s: setattr(s.world, "is_registry_away", True),
    r"registry is back": lambda s: setattr(s.world, "is_registry_away", False),
    r"slot (\d+) hangs": lambda s, n: s.world.hung.add(int(n)),
    r"worker of slot (\d+) is killed": lambda s, n: s.kill_worker(int(n)),
    r"controller dies": _controller_dies,
    r"controller returns": _controller_returns,
    r"machine restarts": _machine_restarts,
    r"gate (\S+) passes": lambda s, gate: s.judge(gate, VerdictKind.passed),
    r"gate (\S+) fails": lambda s, gate: s.judge(gate, VerdictKind.failed),
    r"gate (\S+) lacks data": lambda s, gate: s.judge(gate, VerdictKind.insufficient),
    r"evidence is kept": lambda s: s.keep_evidence(),
    r"(\S+) will fail": lambda s, what: s.world.failing.add(what),
    r"(\S+) will not fail": lambda s, what: s.world.failing.discard(what),
    r"(\S+) will hang": lambda s, what: s.world.hanging.add(what),
    r"(\S+) will not hang": lambda s, what: s.world.hanging.discard(what),
    r"end": lambda _s: None,
}


def tell(text: str) -> str:
    """Run the story of a scenario file and return the transcript that belongs below the dashes."""
    story: Story | None = None
    world = World()
    for line in filter(None, (raw.partition("#")[0].strip() for raw in text.splitlines())):
        head, _, rest = line.partition(" ")
        words = dict(w.split("=") for w in rest.split()) if head in {"endpoint", "world"} else {}
        if head == "world":
            for key, value in words.items():
                _describe(world, key, value)
        elif head == "endpoint":
            story = Story(world, settings(**words))
        else:
            assert story is not None, "a story begins with an endpoint"
            story.run_until(seconds(head))
            story.lines.append(f"{story.now:7.1f}  -- {rest.strip()}")
            _say(story, rest.strip())
    assert story is not None
    return "\n".join(story.lines) + "\n"


def _describe(world: World, key: str, value: str) -> None:
    """Take a word about the world, such as ack=3s; one that it has no place for is an error."""
    name = key if key in {"broken", "slots"} else f"{key}_s"
    getattr(world, name)
    read: dict[str, Callable[[str], object]] = {
        "broken": lambda text: set(text.split(",")),
        "slots": int,
    }
    setattr(world, name, read.get(key, seconds)(value))


def _say(story: Story, sentence: str) -> None:
    for pattern, happens in SENTENCES.items():
        if match := re.fullmatch(pattern, sentence):
            happens(story, *match.groups())
            return
    raise AssertionError(f"no such sentence: {sentence!r}")
