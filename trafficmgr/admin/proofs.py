"""What a revision must prove, as data: gates, hooks and smoke of the rollout under way.

Pure, as admin/views.py. Between two edges a verdict's numbers go on growing with those who judge;
`with_newest` puts them into the state that is shown, and nowhere else.
"""

from typing import Any

from trafficmgr.core import smoke
from trafficmgr.core.gating import HookPhase, HookRun, HttpCall, Verdict, VerdictKind
from trafficmgr.core.model import Rollout, RolloutPhase
from trafficmgr.core.routing import PREVIEW_PREFIX
from trafficmgr.core.schedule import WHOLE_PCT, step_weight_pct
from trafficmgr.core.state import EndpointState

Plain = dict[str, Any]

NOTHING_SEEN = "nothing was seen yet"


BEGINS_STAGE = frozenset({"step", "preview", "promoted"})
"""Marks of a rollout with which other verdicts are asked for."""


def with_newest(state: EndpointState, newest: tuple[Verdict, ...]) -> EndpointState:
    """Return the state with the numbers of now in the verdicts on the present stage.

    Args:
        state: An endpoint, with the verdicts that are journaled.
        newest: What those who judge say now. They may still be at the stage before; of a gate that
            they say nothing of, what is journaled stays.
    """
    rollout = state.rollout
    if rollout is None or not rollout.is_undecided:
        return state
    begun_at = max((mark.at for mark in rollout.marks if mark.what in BEGINS_STAGE), default=0.0)
    of_now = (verdict for verdict in newest if verdict.at >= begun_at)
    known = {verdict.gate: verdict for verdict in (*rollout.verdicts, *of_now)}
    return state.but(rollout=rollout.but(verdicts=tuple(known.values())))


# -- gates ----------------------------------------------------------------------------------------


def judged(rollout: Rollout) -> dict[str, Verdict | None]:
    """Return the gates of the present stage in the order of the config, with what each says."""
    if not rollout.is_undecided or rollout.stage < 0:
        return {}
    is_stepping = rollout.phase is RolloutPhase.progressing
    weight_pct = step_weight_pct(rollout) if is_stepping else WHOLE_PCT
    said = {verdict.gate: verdict for verdict in rollout.verdicts}
    return {name: said.get(name) for name in rollout.settings.gates.names(weight_pct)}


def gates(rollout: Rollout) -> list[Plain]:
    """Return the gates of the present stage as `status` shows them."""
    return [
        {
            "gate": name,
            "kind": (verdict.kind if verdict else VerdictKind.insufficient).value,
            "why": verdict.why if verdict else NOTHING_SEEN,
            "numbers": verdict.numbers if verdict else {},
        }
        for name, verdict in judged(rollout).items()
    ]


# -- hooks ----------------------------------------------------------------------------------------


def hooks(rollout: Rollout, now: float) -> list[Plain]:
    """Return the hooks of a rollout, in the order in which they are done."""
    return [_hook(rollout, run, now) for run in rollout.hooks]


def _hook(rollout: Rollout, run: HookRun, now: float) -> Plain:
    hook = rollout.hook(run.name)
    return {
        "name": run.name,
        "stage": hook.stage.value,
        "kind": "http" if isinstance(hook.action, HttpCall) else "command",
        "phase": run.phase.value,
        "group": run.group or None,
        "seconds": seconds_of(run, now),
        "timeout_s": hook.timeout_s,
        "is_reversible": hook.is_reversible,
        "note": run.note,
    }


def seconds_of(run: HookRun, now: float) -> float | None:
    """Return how long a hook took, or has taken; None if it was not done in this rollout."""
    end = now if run.phase is HookPhase.running else run.ended_at
    return round(end - run.began_at, 3) if run.began_at and end is not None else None


# -- smoke ----------------------------------------------------------------------------------------


def smoke_test(state: EndpointState, rollout: Rollout) -> Plain | None:
    """Return how far the smoke test is; None if there is none."""
    run = rollout.smoke
    if run is None and rollout.settings.smoke is None:
        return None
    return {
        "phase": "waiting" if run is None else run.phase.value,
        "leg": 0 if run is None else run.leg + 1,
        "legs": smoke.legs(rollout),
        "host": preview_host(state),
        "note": "" if run is None else run.note,
    }


def preview_host(state: EndpointState) -> str:
    """Return the name by which the smoke test asks."""
    return PREVIEW_PREFIX + smoke.exact_host(state.settings.hosts)
