"""The smoke test: requests through the workers to the preview, before any weight.

It begins when the candidate's groups are available. Rehearsed, it has three legs: the preview is
switched to the candidate, back to stable, and to the candidate again, each by a table that every
worker acknowledges and real requests then meet. So the way back of this release is known to work
before anybody needs it. Asking twice does no harm, so a new controller asks the leg again.
"""

from collections.abc import Iterator

from trafficmgr.core import clocks
from trafficmgr.core.commands import AskSmoke
from trafficmgr.core.events import SmokeEnded
from trafficmgr.core.gating import HookStage, SmokePhase, SmokeRun
from trafficmgr.core.model import Rollout, RolloutPhase
from trafficmgr.core.routing import PREVIEW_PREFIX
from trafficmgr.core.state import EndpointState

BACK = 1
"""The leg of a rehearsal in which the preview is stable's."""

REHEARSED_LEGS = 3


def smoke_ended(state: EndpointState, event: SmokeEnded) -> EndpointState:
    """Go on to the next leg, or take note of how it ended."""
    rollout = state.rollout
    if rollout is None or rollout.id != event.rollout or rollout.smoke is None:
        return state
    run = rollout.smoke
    if not rollout.is_smoking or run.leg != event.leg:
        return state
    if not event.is_success:
        run = run.but(phase=SmokePhase.failed, note=event.reason)
    elif run.leg + 1 < legs(rollout):
        run = run.but(leg=run.leg + 1)
    else:
        run = run.but(phase=SmokePhase.passed)
    return state.but(rollout=rollout.but(smoke=run))


def begin(state: EndpointState, now: float) -> EndpointState:
    """Ask as soon as the candidate could take its first step."""
    rollout = state.rollout
    if rollout is None or rollout.smoke is not None or not is_due(rollout) or rollout.is_paused:
        return state
    if not rollout.is_done(HookStage.before) or not clocks.can_go_on(state, rollout, now):
        return state
    return state.but(rollout=rollout.but(smoke=SmokeRun()))


def is_due(rollout: Rollout) -> bool:
    """Whether the first step waits for the smoke test to pass."""
    if rollout.settings.smoke is None or rollout.step >= 0 or rollout.is_overruled:
        return False
    is_passed = rollout.smoke is not None and rollout.smoke.phase is SmokePhase.passed
    return rollout.phase is RolloutPhase.progressing and not is_passed


def legs(rollout: Rollout) -> int:
    """Return how many legs the smoke test of a rollout has."""
    is_rehearsed = rollout.settings.smoke is not None and rollout.settings.smoke.is_rehearsed
    return REHEARSED_LEGS if is_rehearsed else 1


def revision_of(state: EndpointState) -> str:
    """Return the revision that the preview shows now."""
    run = None if state.rollout is None else state.rollout.smoke
    is_back = run is not None and run.phase is SmokePhase.asking and run.leg == BACK
    return state.stable if is_back else state.candidate


def exact_host(hosts: tuple[str, ...]) -> str:
    """Return the host that is asked: a wildcard has no preview."""
    return next(host for host in hosts if not host.startswith("*."))


def wanted(state: EndpointState) -> Iterator[AskSmoke]:
    """Yield the leg that should be asked now: every worker serves its preview."""
    rollout, table = state.rollout, state.table
    if rollout is None or not rollout.is_smoking or rollout.is_paused or not rollout.is_undecided:
        return
    run, settings = rollout.smoke, rollout.settings
    is_served = bool(state.slots) and all(
        slot.is_present and slot.applied >= table.generation for slot in state.slots
    )
    shown = "" if table.preview is None else table.preview.revision
    if run is None or settings.smoke is None or not is_served or shown != revision_of(state):
        return
    yield AskSmoke(
        endpoint=state.name,
        rollout=rollout.id,
        leg=run.leg,
        host=PREVIEW_PREFIX + exact_host(table.hosts),
        revision=shown,
        smoke=settings.smoke,
    )
