"""The nouns of an endpoint and its rollouts, and their invariants (DESIGN 2)."""

from enum import StrEnum

from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import (
    Gates,
    Hook,
    HookPhase,
    HookRun,
    HookStage,
    Smoke,
    SmokePhase,
    SmokeRun,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.noun import Noun
from trafficmgr.core.template import GroupTemplate
from trafficmgr.core.traffic import HttpPolicy

# -- where traffic can go -------------------------------------------------------------------------


class Tcp(Noun, tag="tcp"):
    """A place that is dialled by address and port."""

    address: str
    port: int


class Via(Noun, tag="via"):
    """A place behind a unix socket that hands out connected sockets (pod mode)."""

    path: str
    port: int


Dial = Tcp | Via


class Publish(StrEnum):
    """What DNS answers: the proxy's address, or the groups' own."""

    proxy = "proxy"
    groups = "groups"


class Affinity(StrEnum):
    """Whether a client stays with its revision, and what a client is known by (promise 10)."""

    none = "none"
    client = "client"
    cookie = "cookie"
    header = "header"


# -- what the user wants --------------------------------------------------------------------------


class Step(Noun):
    """One stage of a rollout: a share of traffic and how long it is held.

    With `pause` the hold does not end by itself; `promote` ends it. A weight of 0 is a preview:
    only `preview.<host>` reaches the candidate. `deadline_s` takes the rollout's place meanwhile.
    """

    weight_pct: int
    hold_s: float
    pause: bool = False
    deadline_s: float | None = None


class CandidateReplicas(StrEnum):
    """How many groups a candidate has: all from the start, or as many as its weight needs."""

    full = "full"
    scaled = "scaled"


class OnNewer(StrEnum):
    """What a newer revision means for the rollout under way (promise 4)."""

    supersede = "supersede"
    queue = "queue"
    ignore = "ignore"


class EndpointSettings(Noun):
    """An endpoint as configured. A rollout keeps the settings it started with.

    `fence_s` is how long a worker may take to acknowledge a table before it is restarted.
    `gates`, `hooks` and `smoke` are what a revision must prove (gating.py), `http` how it is served
    beside that (traffic.py).
    """

    name: str
    hosts: tuple[str, ...]
    template: GroupTemplate
    port: int
    replicas: int = 1
    publish: Publish = Publish.proxy
    ttl_s: int = 10
    ttl_grace_s: float = 5.0
    steps: tuple[Step, ...] = (
        Step(weight_pct=5, hold_s=60.0),
        Step(weight_pct=25, hold_s=60.0),
        Step(weight_pct=50, hold_s=60.0),
    )
    candidate_replicas: CandidateReplicas = CandidateReplicas.full
    on_newer: OnNewer = OnNewer.supersede
    min_ready_s: float = 10.0
    deadline_s: float = 600.0
    watch_s: float = 300.0
    keep_previous_s: float = 600.0
    drain_http_s: float = 30.0
    drain_websocket_s: float = 600.0
    fence_s: float = 5.0
    max_revisions: int = 3
    affinity: Affinity = Affinity.none
    gates: Gates = Gates()
    hooks: tuple[Hook, ...] = ()
    smoke: Smoke | None = None
    http: HttpPolicy = HttpPolicy()


# -- what there is --------------------------------------------------------------------------------


class GroupPhase(StrEnum):
    """Where a group is on its way from wanted to gone.

    `waiting` sits out a back-off; `wanted` has an identity but no processes yet; `started` has
    processes; `ended` lost them by itself; `completed` came to the end of its work, which its
    restart policy allows; `stopping` was told to stop. A group that is gone is removed from the
    state.
    """

    waiting = "waiting"
    wanted = "wanted"
    started = "started"
    ended = "ended"
    completed = "completed"
    stopping = "stopping"


class Group(Noun):
    """One running copy of a revision.

    `is_unknown` says that it can't be known now whether it can be started (promise 12).
    `replaces` is the group that was lost and whose place it took, `restarts` how often that
    happened in this place ("" and 0: it is the first there). One that completed its work with
    success counts as ready, but is in no table. `hook` names the hook whose task it runs ("":
    none); such a group is no replica of its revision.

    Membership of the table is tracked apart from the life of the processes, because clients hold
    on to an address longer than we do (promise 1):

    * `withdrawn_generation` is the first table without the group (0: never was in one, or is in);
    * `answered_at` is the last time that a DNS answer may have carried its address (None: never);
    * `max_ttl_s` is the largest TTL with which its address was published (None: it never was);
    * `http_slots`, `tunnel_slots` are the slots that may still hold requests or tunnels to it;
    * `is_direct_clear`: after the TTL ran out the kernel listed no connection to its address.
    """

    id: str
    revision: str
    created_at: float
    address: str = ""
    phase: GroupPhase = GroupPhase.wanted
    start_at: float = 0.0
    replaces: str = ""
    restarts: int = 0
    hook: str = ""
    is_unknown: bool = False
    is_ready: bool = False
    ready_since: float | None = None
    is_retiring: bool = False
    note: str = ""
    in_table: bool = False
    withdrawn_generation: int = 0
    withdrawn_at: float | None = None
    answered_at: float | None = None
    max_ttl_s: int | None = None
    http_slots: tuple[int, ...] = ()
    tunnel_slots: tuple[int, ...] = ()
    is_direct_clear: bool = False


class Slot(Noun):
    """A numbered place of a worker, as one endpoint sees it.

    `start_id` names the worker that was started there last; `is_present` says that it said hello to
    this controller. `applied` is the newest generation it acknowledged;
    `is_overdue` that it did not acknowledge the present one within the fence.
    """

    number: int
    start_id: str = ""
    is_present: bool = False
    applied: int = 0
    lagging_since: float | None = None
    is_overdue: bool = False


class Countdown(Noun):
    """A wait that can be interrupted: seconds left, and since when they run (None: halted)."""

    left_s: float
    since: float | None = None

    def run(self, now: float) -> "Countdown":
        """Let it run from now; a running one goes on."""
        return self if self.since is not None else self.but(since=now)

    def halt(self, now: float) -> "Countdown":
        """Stop it and keep what is left."""
        if self.since is None:
            return self
        return Countdown(left_s=self.left_at(now))

    def left_at(self, now: float) -> float:
        """Return the seconds left; less than a microsecond is rounding and counts as none."""
        left_s = self.left_s - (0.0 if self.since is None else now - self.since)
        return left_s if left_s > 1e-6 else 0.0  # noqa: PLR2004  a microsecond

    @property
    def ends_at(self) -> float | None:
        """When it runs out if nothing interrupts it; None while it is halted."""
        return None if self.since is None else self.since + self.left_s


class RolloutPhase(StrEnum):
    """The phases of a rollout. The last four end it."""

    progressing = "progressing"
    promoting = "promoting"
    aborting = "aborting"
    completed = "completed"
    aborted = "aborted"
    superseded = "superseded"


class Mark(Noun):
    """Something a rollout did, for the people who read its history."""

    at: float
    what: str
    weight_pct: int = 0


class Rollout(Noun, kw_only=True):
    """Moving an endpoint from one revision to another.

    `step` is -1 until the candidate is available, then the index into `settings.steps`.
    `hold` runs while the candidate can carry the step; `deadline` while there is no progress.
    `is_paused` halts both, until an operator says `resume` or `promote`. `is_rollback` marks one
    that goes back to the revision before: it has no steps and is never rolled back itself.

    `verdicts` are those of the present stage, and `patience` what is left of `max_hold` for them.
    `is_waived`: an operator ended the stage, so it waits for no verdict; `is_overruled`: an
    operator went on although a gate, a hook or smoke had failed, so none of them decides any more.
    `questions` is why it was paused by itself and what can be done, by what each is about.
    """

    id: str
    origin: str
    revision: str
    settings: EndpointSettings
    started_at: float
    phase: RolloutPhase = RolloutPhase.progressing
    step: int = -1
    hold: Countdown | None = None
    deadline: Countdown
    most_ready: int = 0
    is_paused: bool = False
    is_rollback: bool = False
    verdicts: tuple[Verdict, ...] = ()
    patience: Countdown | None = None
    is_waived: bool = False
    is_overruled: bool = False
    evidence: Evidence | None = None
    hooks: tuple[HookRun, ...] = ()
    smoke: SmokeRun | None = None
    questions: dict[str, str] = {}
    reason: str = ""
    ended_at: float | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.ended_at is not None

    @property
    def is_undecided(self) -> bool:
        """Whether the health of its revision still decides about it."""
        phase = self.phase
        return phase is RolloutPhase.progressing or phase is RolloutPhase.promoting

    @property
    def stage(self) -> int:
        """Return the number of what it is in now: -1, a step's index, or their count: the watch."""
        is_stepping = self.phase is RolloutPhase.progressing
        return self.step if is_stepping else len(self.settings.steps)

    def hook(self, name: str) -> Hook:
        """Return what was configured under a hook's name."""
        return next(hook for hook in self.settings.hooks if hook.name == name)

    def is_done(self, stage: HookStage) -> bool:
        """Whether nothing is left to do of a stage of its hooks."""
        runs = (run for run in self.hooks if self.hook(run.name).stage is stage)
        return all(self.is_done_with(run) for run in runs)

    def is_done_with(self, run: HookRun) -> bool:
        """Whether nothing waits for a hook any more: it succeeded, or its failure is nothing."""
        is_nothing = self.is_overruled or self.hook(run.name).stage is HookStage.after
        return run.phase is HookPhase.succeeded or (run.is_over and is_nothing)

    @property
    def is_hooked(self) -> bool:
        """Whether a hook is being done: it has a timeout of its own, so no other clock runs."""
        return any(run.phase in {HookPhase.wanted, HookPhase.running} for run in self.hooks)

    @property
    def irreversible(self) -> str:
        """Return the hook that was begun and can't be undone: nothing goes back by itself then."""
        begun = (run.name for run in self.hooks if run.has_begun)
        return next((name for name in begun if not self.hook(name).is_reversible), "")

    @property
    def is_smoking(self) -> bool:
        """Whether the smoke test is being asked."""
        return self.smoke is not None and self.smoke.phase is SmokePhase.asking

    @property
    def failed_gates(self) -> tuple[Verdict, ...]:
        """Return the verdicts of the present stage that condemn it."""
        return tuple(v for v in self.verdicts if v.kind is VerdictKind.failed)

    @property
    def has_failed(self) -> bool:
        """Whether a gate, a hook or smoke has condemned it, though it goes on."""
        is_burnt = self.smoke is not None and self.smoke.phase is SmokePhase.failed
        failed = (run for run in self.hooks if run.phase is HookPhase.failed)
        is_failed = any(self.hook(run.name).stage is not HookStage.after for run in failed)
        return bool(self.failed_gates) or is_burnt or is_failed

    @property
    def open_gates(self) -> tuple[str, ...]:
        """Return the gates of the present step that did not pass yet, in order."""
        if self.is_waived or self.is_overruled or self.step < 0:
            return ()
        weight_pct = self.settings.steps[self.step].weight_pct
        passed = {v.gate for v in self.verdicts if v.kind is VerdictKind.passed}
        return tuple(n for n in self.settings.gates.names(weight_pct) if n not in passed)

    @property
    def question(self) -> str:
        """Return all that it asks ("": it was not paused by itself)."""
        return " ".join(self.questions.values())

    @property
    def is_held(self) -> bool:
        """Whether its present step waits for `promote`, however long that takes."""
        return self.phase is RolloutPhase.progressing and self.step >= 0 and self.hold is None


class Backoff(Noun):
    """How a revision's groups failed lately, why the last one did, and when the next may start."""

    failures: int = 0
    next_at: float = 0.0
    note: str = ""
