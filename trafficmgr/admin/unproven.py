"""`why`, as far as gates, hooks and smoke go: what a revision has still to prove, in sentences.

Pure, as admin/reasons.py, which puts these sentences in their place.
"""

from collections.abc import Iterator

from trafficmgr.admin import proofs
from trafficmgr.config.units import shown
from trafficmgr.core.gating import (
    HookPhase,
    HookRun,
    HookStage,
    HttpCall,
    OnInsufficient,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.model import GroupPhase, Rollout
from trafficmgr.core.smoke import BACK, legs
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short

THEN = {
    OnInsufficient.promote: "then it goes on without a verdict",
    OnInsufficient.abort: "then the rollout is aborted",
    OnInsufficient.pause: "then the rollout is paused",
}
"""What comes of it when no verdict comes."""


def seconds(left_s: float) -> str:
    """Return a time that is left, or has passed, in whole seconds."""
    return shown(max(0, round(left_s)))


def asked(state: EndpointState, rollout: Rollout, *, where: str) -> str:
    """Return the question of a rollout that was paused by itself, and how it is answered."""
    return (
        f"The rollout of {short(rollout.revision)} was paused by itself {where}."
        f" {rollout.question} Each is typed like `trafficmgr abort {state.name}`."
    )


def going_on(state: EndpointState, rollout: Rollout, now: float) -> Iterator[str]:
    """Yield what is being done for the rollout at this moment: a hook, the smoke test."""
    for run in rollout.hooks:
        if run.phase in {HookPhase.wanted, HookPhase.running}:
            yield _hook(state, rollout, run, now)
    if rollout.is_smoking and rollout.smoke is not None:
        yield _smoke(state, rollout, rollout.smoke.leg)


def irreversible(state: EndpointState, rollout: Rollout) -> Iterator[str]:
    """Yield that nothing goes back by itself any more, if that is so."""
    if rollout.irreversible:
        yield (
            f"Hook {rollout.irreversible} can't be undone, so nothing goes back by itself;"
            f" `trafficmgr abort {state.name}` does it all the same."
        )


# -- gates ----------------------------------------------------------------------------------------


def gates(rollout: Rollout, now: float) -> Iterator[str]:
    """Yield each gate of the present step that did not pass yet, the last with the time it has."""
    said = proofs.judged(rollout)
    waiting = [_not_passed(name, said.get(name)) for name in rollout.open_gates]
    if waiting and _is_hold_over(rollout, now) and rollout.patience is not None:
        waiting[-1] += f" {_patience(rollout, rollout.patience.left_at(now))}"
    yield from waiting


def overruled(rollout: Rollout) -> Iterator[str]:
    """Yield that nothing which fails decides any more, because an operator went on over it."""
    if not rollout.is_overruled:
        return
    failed = [f"gate {verdict.gate} ({verdict.why})" for verdict in rollout.failed_gates]
    now = f"; now fails {', '.join(failed)}" if failed else ""
    yield f"An operator went on over what had failed, so no gate decides any more{now}."


def _is_hold_over(rollout: Rollout, now: float) -> bool:
    return rollout.hold is not None and rollout.hold.left_at(now) <= 0


def _not_passed(name: str, verdict: Verdict | None) -> str:
    if verdict is None:
        return f"Gate {name} has not seen enough: {proofs.NOTHING_SEEN}."
    is_failed = verdict.kind is VerdictKind.failed
    how = "has failed" if is_failed else "has not seen enough"
    return f"Gate {name} {how}: {verdict.why.rstrip('.')}."


def _patience(rollout: Rollout, left_s: float) -> str:
    then = THEN[rollout.settings.gates.on_insufficient]
    return f"The step is held for up to {seconds(left_s)} more, {then}."


# -- hooks ----------------------------------------------------------------------------------------


def _hook(state: EndpointState, rollout: Rollout, run: HookRun, now: float) -> str:
    """Return what a hook does now, and what waits for it."""
    hook = rollout.hook(run.name)
    is_call = isinstance(hook.action, HttpCall)
    limit = f"(timeout {shown(hook.timeout_s)})"
    where = f" in group {run.group}" if run.group else ""
    if run.phase is HookPhase.running:
        since = seconds(now - (run.began_at or now))
        does = f"{'is called' if is_call else 'runs'} since {since}{where} {limit}"
    elif is_call:
        does = f"is about to be called {limit}"
    else:
        does = f"is being started{where}{_trouble(state, run.group)}"
    return f"Hook {run.name} {does}; {_waits_for_it(rollout, hook.stage)} when it is done."


def _trouble(state: EndpointState, task: str) -> str:
    """Return why a task group is not started yet, if more is known than that it will be."""
    group = next((one for one in state.groups if one.id == task), None)
    if group is None:
        return ""
    if group.phase is GroupPhase.wanted and not group.address:
        return ", which waits for a free address (give a larger address_pool)"
    return f", and that is tried again ({group.note})" if group.is_unknown else ""


def _waits_for_it(rollout: Rollout, stage: HookStage) -> str:
    name = short(rollout.revision)
    match stage:
        case HookStage.before:
            return f"groups of {name} start"
        case HookStage.gate:
            return f"{name} is promoted"
        case HookStage.after:
            return "the rollout is complete"


# -- smoke ----------------------------------------------------------------------------------------


def _smoke(state: EndpointState, rollout: Rollout, leg: int) -> str:
    """Return which leg of the smoke test is asked now."""
    host, every, name = proofs.preview_host(state), legs(rollout), short(rollout.revision)
    if every == 1:
        return f"Smoke asks {host}, which reaches {name} and nobody else."
    on = f"on {name}" if leg < BACK else f"on {name} again"
    where = f"back on {short(state.stable)}" if leg == BACK else on
    return f"Smoke asks {host}: leg {leg + 1} of {every} ({where})."
