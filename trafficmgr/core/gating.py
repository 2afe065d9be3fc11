"""What a revision must prove before it carries everybody: gates, hooks, smoke, and their nouns.

A **gate** is a check that every step, and the watch after promotion, must pass. Some read what our
own data plane counted (`gates.py` judges them), some ask the world (`Check`). Its answer is a
**verdict**: pass, fail, or insufficient data, which fails nothing and holds the step for longer.

A **hook** is something that is done once for a revision at one point of its rollout: before its
groups start, before it is promoted, or after all is over. **Smoke** is a handful of requests
through the workers to the preview, before any weight.
"""

from enum import StrEnum

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ExecCheck, HttpCheck, TcpCheck

# -- gates as configured --------------------------------------------------------------------------


class OnInsufficient(StrEnum):
    """What happens when `max_hold` is over and a gate still has not seen enough."""

    promote = "promote"
    abort = "abort"
    pause = "pause"


class Compare(Noun):
    """A sequential test of the candidate against stable.

    `alpha` bounds the share of good releases that it condemns, over a whole rollout and however
    often it looks. `catch` is the share of failures that must have been noticed for a pass.
    `has_latency`: slow answers are compared as well, with half of `alpha` each.
    """

    alpha: float = 0.01
    catch: float = 0.05
    has_latency: bool = True


class JsonCheck(Noun, tag="http"):
    """A GET whose answer decides: its status, or a number in its JSON.

    `path` leads to the number ("data.result.0.value.1"; "" is: the status decides, 2xx passes). It
    passes within [`at_least`, `at_most`] (None: no bound).
    """

    url: str
    path: str = ""
    at_least: float | None = None
    at_most: float | None = None


class CommandCheck(Noun, tag="command"):
    """A command on trafficmgr's host; exit code 0 passes, any other fails."""

    command: tuple[str, ...]


class ProbeCheck(Noun, tag="probe"):
    """A probe of every ready group of the candidate, in the given container (exec only)."""

    check: HttpCheck | TcpCheck | ExecCheck
    container: str = ""


class Check(Noun):
    """A gate that asks the world every `every_s`; it fails after `fall` failures in a row.

    What can't be asked says nothing: unknown is not failed (promise 12).
    """

    name: str
    ask: JsonCheck | CommandCheck | ProbeCheck
    every_s: float = 30.0
    timeout_s: float = 10.0
    fall: int = 1


ENOUGH_REQUESTS = 100
"""Requests of the candidate in a step that a limit needs before it passes, unless the user says."""


class Gates(Noun):
    """All gates of an endpoint; without any, time and health alone decide.

    `max_error_rate` is a share of 1. `max_hold_s` is how long a step may wait for its verdicts.
    """

    max_error_rate: float | None = None
    max_p50_s: float | None = None
    max_p95_s: float | None = None
    max_p99_s: float | None = None
    min_requests: int | None = None
    compare: Compare | None = None
    checks: tuple[Check, ...] = ()
    max_hold_s: float = 1800.0
    on_insufficient: OnInsufficient = OnInsufficient.pause

    def on_traffic(self) -> tuple[str, ...]:
        """Return the names of the gates that read our own counts, in the order of their keys."""
        limits = {
            "max_error_rate": self.max_error_rate,
            "max_p50": self.max_p50_s,
            "max_p95": self.max_p95_s,
            "max_p99": self.max_p99_s,
            "min_requests": self.min_requests,
            "compare": self.compare,
        }
        return tuple(name for name, limit in limits.items() if limit is not None)

    def names(self, weight_pct: int) -> tuple[str, ...]:
        """Return the names of the gates that count at this weight; a preview has no traffic."""
        own = tuple(check.name for check in self.checks)
        return (*self.on_traffic(), *own) if weight_pct else own


# -- hooks and smoke as configured ----------------------------------------------------------------


class HookStage(StrEnum):
    """When a hook is done: before groups start, before promotion, after the watch."""

    before = "before"
    gate = "gate"
    after = "after"


class HttpCall(Noun, tag="http"):
    """A request to somebody; any 2xx answer is success."""

    url: str
    method: str = "POST"


class TaskCommand(Noun, tag="command"):
    """A command in a one-off task group of the new revision: image, env, volumes of `container`."""

    container: str
    command: tuple[str, ...]


class Hook(Noun):
    """Something that is done once for a revision; names are unique in an endpoint."""

    name: str
    stage: HookStage
    action: HttpCall | TaskCommand
    timeout_s: float = 600.0
    is_reversible: bool = True


class SmokeRequest(Noun):
    """A GET to the preview, and what it must answer; `body` is a regular expression ("": any)."""

    path: str = "/"
    status: int = 200
    body: str = ""


class Smoke(Noun):
    """Requests through the workers to the preview, before any weight.

    `is_rehearsed`: the preview is switched to the candidate, back to stable, and forth again.
    """

    requests: tuple[SmokeRequest, ...] = (SmokeRequest(),)
    timeout_s: float = 10.0
    is_rehearsed: bool = False


# -- what became of them --------------------------------------------------------------------------


class VerdictKind(StrEnum):
    """The answer of a gate."""

    passed = "pass"
    failed = "fail"
    insufficient = "insufficient"


class Verdict(Noun):
    """What a gate said of one stage, why, and the numbers that it said it by."""

    gate: str
    kind: VerdictKind
    at: float
    why: str
    numbers: dict[str, float] = {}


class HookPhase(StrEnum):
    """How far a hook has come. `unknown`: it began, and nobody can say how it ended."""

    waiting = "waiting"
    wanted = "wanted"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    unknown = "unknown"


class HookRun(Noun):
    """A hook in a rollout. `group` is the task group of a command; `until` ends a hang.

    `began_at` is None as long as nothing can have been done.
    """

    name: str
    phase: HookPhase = HookPhase.waiting
    group: str = ""
    began_at: float | None = None
    until: float | None = None
    ended_at: float | None = None
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will not be done any more in this rollout."""
        return self.phase in {HookPhase.succeeded, HookPhase.failed}

    @property
    def has_begun(self) -> bool:
        """Whether it may have done something: a task may from when its start is wanted."""
        is_starting = self.phase is HookPhase.wanted and bool(self.group)
        return self.began_at is not None or is_starting


class SmokePhase(StrEnum):
    """How far the smoke test has come."""

    asking = "asking"
    passed = "passed"
    failed = "failed"


class SmokeRun(Noun):
    """The smoke test of a rollout. `leg` counts the switches of a rehearsal: forth, back, forth."""

    leg: int = 0
    phase: SmokePhase = SmokePhase.asking
    note: str = ""
