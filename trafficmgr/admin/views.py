"""State to plain data, for the API: what `status`, `rollouts` and `why` are made of.

Pure functions of the state and the time. Sentences are made here, once, so that CLI, API and
dashboard say the same. Every duration that is shown counts from `now`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trafficmgr.admin import proofs, unproven
from trafficmgr.admin.needs import unmet
from trafficmgr.config.units import shown
from trafficmgr.core import clocks, operator, publishing, retirement
from trafficmgr.core.model import Group, GroupPhase, Rollout, RolloutPhase
from trafficmgr.core.routing import PREVIEW_PREFIX
from trafficmgr.core.schedule import WHOLE_PCT, step_weight_pct
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short
from trafficmgr.wire.frames import ShareCounts

Plain = dict[str, Any]


def endpoint(
    state: EndpointState,
    counts: dict[str, ShareCounts],
    observed: dict[str, int],
    now: float,
    *,
    gaps: Mapping[str, str],
) -> Plain:
    """Return an endpoint as `status` shows it.

    Args:
        state: The endpoint.
        counts: What all workers counted, by revision.
        observed: Clients served by each revision since the weights last changed.
        now: Seconds on CLOCK_BOOTTIME.
        gaps: What the runtime can't give, and why.
    """
    return {
        "name": state.name,
        "hosts": list(state.settings.hosts),
        "publish": state.settings.publish.value,
        "phase": phase(state),
        "says": says(state, now),
        "alarm": alarm(state),
        "remarks": list(_remarks(state, gaps)),
        "newest": short(state.newest) or None,
        "stable": short(state.stable) or None,
        "candidate": short(state.candidate) or None,
        "previous": short(state.previous) or None,
        "generation": state.table.generation,
        "is_held": state.is_held,
        "weights": list(_weights(state, counts, observed)),
        "groups": [_group(group, state, now) for group in state.groups],
        "rollout": _rollout_now(state, now),
        "quarantined": [
            {"revision": short(revision), "reason": reason}
            for revision, reason in state.quarantined.items()
        ],
    }


def phase(state: EndpointState) -> str:
    """Return where the endpoint is, in one word."""
    if state.is_removed:
        return "removed"
    if operator.standing(state) is operator.Standing.paused:
        return "paused"
    if state.rollout is not None and not state.rollout.is_over:
        return state.rollout.phase.value
    return "serving" if state.stable else "starting"


def alarm(state: EndpointState) -> str:
    """Return what needs a person now, or ""."""
    if state.is_removed or not state.newest:
        return ""
    if state.table.is_least_bad:
        return "No group is ready; requests go to those that still run."
    if not state.table.shares and state.stable:
        return "No group is ready and none is running; requests are answered with 503."
    return ""


def _remarks(state: EndpointState, gaps: Mapping[str, str]) -> Iterator[str]:
    """Yield what one would not expect: of this machine, of what operators did, of previews."""
    if state.is_held:
        for_long = shown(state.settings.http.hold_s)
        release = f"`trafficmgr release {state.name}` lets them be served"
        yield f"held: requests wait for up to {for_long}; {release}"
    if state.is_engine_away:
        yield "the engine can't be asked now; what runs goes on, and nothing is given up meanwhile"
    for behaviour, why_not in unmet(state.settings.template, gaps):
        yield f"{behaviour} can't be had here: {why_not}"
    if state.scaled_to is not None and state.scaled_to != state.settings.replicas:
        yield (
            f"scaled to {state.scaled_to} by an operator; the config says {state.settings.replicas}"
        )
    names = [PREVIEW_PREFIX + host for host in state.table.hosts if not host.startswith("*")]
    if state.table.preview is not None and names:
        hosts = ", ".join(names)
        yield f"{hosts} reaches the candidate, {short(state.table.preview.revision)}"
    rollout = state.rollout
    if rollout is not None and rollout.is_undecided:
        yield from _remarks_on(rollout)
    if state.ignored:
        yield (
            f"revision {short(state.ignored)} came during a rollout and is ignored;"
            f" `trafficmgr retry {state.name}` takes it up"
        )


def _remarks_on(rollout: Rollout) -> Iterator[str]:
    """Yield what makes this rollout another one than its config says."""
    if rollout.irreversible:
        yield (
            f"hook {rollout.irreversible} can't be undone (reversible: false): nothing goes back by"
            f" itself"
        )
    if rollout.is_overruled:
        yield "an operator went on over what had failed; no gate decides any more"
    elif rollout.is_waived:
        yield "the present step waits for no gate"


def says(state: EndpointState, now: float) -> str:
    """Return what the endpoint does now and what it waits for; first, if its requests wait."""
    if state.is_removed:
        left = len(state.groups)
        return f"Removed; {left} groups still drain." if left else "Removed; nothing of it runs."
    return "Requests are held. " * state.is_held + _says_revisions(state, now)


def _says_revisions(state: EndpointState, now: float) -> str:
    rollout = state.rollout
    if not state.newest:
        return "Waits for the registry to show its image for the first time."
    if rollout is not None and not rollout.is_over:
        return _says_rollout(state, rollout, now)
    if state.newest in state.quarantined:
        why = state.quarantined[state.newest]
        return f"Revision {short(state.newest)} failed and is not tried again: {why}."
    if state.newest != state.stable:
        return f"Revision {short(state.newest)} waits until {_room(state)}."
    return _says_stable(state)


def _says_stable(state: EndpointState) -> str:
    name, ready, wanted = short(state.stable), len(state.ready(state.stable)), state.replicas
    if ready and not state.serves(state.stable):
        return f"Revision {name} did its work in {ready} of {wanted} groups."
    return f"Revision {name} serves with {ready} of {wanted} groups ready."


def _room(state: EndpointState) -> str:
    """Return what makes room for the newest revision."""
    if state.stable and not state.is_admitted:
        return "the rollout of another endpoint is over"
    return "another has drained"


def _says_rollout(state: EndpointState, rollout: Rollout, now: float) -> str:
    name = short(rollout.revision)
    if rollout.phase is RolloutPhase.aborting:
        return (
            f"Aborting {name}: {rollout.reason}. Traffic is on {short(state.stable) or 'nothing'}."
        )
    if rollout.question:
        return f"{name} was paused by itself {_with_share(state)}; it waits for an answer."
    if rollout.is_hooked or rollout.is_smoking:
        return next(unproven.going_on(state, rollout, now))
    if rollout.phase is RolloutPhase.promoting:
        return f"Revision {name} is stable and watched for another {_left(rollout, now)}."
    if operator.standing(state) is operator.Standing.paused:
        return _says_paused(state, rollout)
    return _says_progress(state, rollout, now)


def _says_progress(state: EndpointState, rollout: Rollout, now: float) -> str:
    name = short(rollout.revision)
    ready, wanted = len(state.ready(rollout.revision)), clocks.candidate_groups(state, now)
    if rollout.step < 0:
        until = f"aborts in {rollout.deadline.left_at(now):.0f}s without progress"
        return f"Starting {name}: {ready} of {wanted} groups ready; {until}."
    weight = f"{publishing.candidate_weight_pct(state)} % of traffic"
    if rollout.hold is not None and rollout.hold.since is None:
        return (
            f"{name} has {weight}, but only {ready} of {wanted} groups are ready; it can't go on."
        )
    is_over = rollout.hold is not None and rollout.hold.left_at(now) <= 0
    if is_over and rollout.open_gates and rollout.patience is not None:
        left = f"for up to {rollout.patience.left_at(now):.0f}s"
        gates = ", ".join(rollout.open_gates)
        return f"{name} has {weight} and waits {left} for the verdict of {gates}."
    return f"{name} has {weight}, for another {_left(rollout, now)}."


def _says_paused(state: EndpointState, rollout: Rollout) -> str:
    verb = "promote" if rollout.is_held and not rollout.is_paused else "resume"
    goes_on = f"`trafficmgr {verb} {state.name}` lets it go on"
    return f"{short(rollout.revision)} is paused {_with_share(state)}; {goes_on}."


def _with_share(state: EndpointState) -> str:
    is_promoted = state.rollout is not None and state.rollout.phase is RolloutPhase.promoting
    weight_pct = WHOLE_PCT if is_promoted else publishing.candidate_weight_pct(state)
    return f"with {weight_pct} % of traffic" if weight_pct else "without traffic"


def _left(rollout: Rollout, now: float) -> str:
    return f"{rollout.hold.left_at(now):.0f}s" if rollout.hold else "0s"


def _weights(
    state: EndpointState, counts: dict[str, ShareCounts], observed: dict[str, int]
) -> Iterator[Plain]:
    """Yield each revision with a role or a share: configured and observed."""
    configured = {share.revision: share.weight_pct for share in state.table.shares}
    roles = (state.candidate, state.stable, state.previous)
    shown = dict.fromkeys(revision for revision in (*configured, *roles) if revision)
    total = sum(observed.values())
    for revision in shown:
        count = counts.get(revision, ShareCounts())
        yield {
            "revision": short(revision),
            "weight_pct": configured.get(revision, 0),
            "observed_pct": round(100 * observed.get(revision, 0) / total, 1) if total else None,
            "requests": count.requests,
            "dns_answers": count.dns,
            "errors_5xx": count.errors_5xx,
            "failures": sum(count.failures.values()),
            "spilled": count.spilled,
            "ready": len(state.ready(revision)),
            "replicas": state.replicas,
        }


def _group(group: Group, state: EndpointState, now: float) -> Plain:
    return {
        "id": group.id,
        "revision": short(group.revision),
        "address": group.address,
        "state": group_state(group),
        "ready": group.is_ready,
        "hook": group.hook or None,
        "note": group.note,
        "waits": list(_waits(group, state, now)),
    }


def group_state(group: Group) -> str:
    """Return where a group is on its way, in one word."""
    is_leaving = group.is_retiring and group.phase is GroupPhase.started
    return "retiring" if is_leaving else group.phase.value


def _waits(group: Group, state: EndpointState, now: float) -> Iterator[str]:
    """Yield what a retiring group waits for, with the seconds left."""
    if group.phase is GroupPhase.waiting:
        yield f"waits {max(0.0, group.start_at - now):.0f}s before it is started again"
    if group.phase is GroupPhase.wanted and not group.address:
        yield "waits for a free address; give a larger address_pool"
    if not group.is_retiring or group.phase is GroupPhase.stopping:
        return
    for condition in retirement.conditions(group, state, now):
        if not condition.is_met:
            left = "" if condition.ends_at is None else f", {condition.ends_at - now:.0f}s left"
            yield f"waits for {condition.says}{left}"


def _rollout_now(state: EndpointState, now: float) -> Plain | None:
    rollout = state.rollout
    if rollout is None or rollout.is_over:
        return None
    hold = rollout.hold
    return {
        "id": rollout.id,
        "from": short(rollout.origin) or None,
        "to": short(rollout.revision),
        "phase": rollout.phase.value,
        "step": rollout.step + 1,
        "steps": len(rollout.settings.steps),
        "is_paused": rollout.is_paused,
        "is_rollback": rollout.is_rollback,
        "weight_pct": _weight_pct(rollout),
        "hold_left_s": None if hold is None else round(hold.left_at(now), 1),
        "deadline_left_s": round(rollout.deadline.left_at(now), 1),
        "reason": rollout.reason,
        **_proofs(state, rollout, now),
    }


def _weight_pct(rollout: Rollout) -> int:
    """Return the share that the revision is meant to have; none once it is given up."""
    if rollout.phase is RolloutPhase.promoting:
        return WHOLE_PCT
    return step_weight_pct(rollout) if rollout.is_undecided else 0


def _proofs(state: EndpointState, rollout: Rollout, now: float) -> Plain:
    """Return what the revision has to prove, and what somebody has to answer."""
    patience = rollout.patience
    return {
        "question": rollout.question,
        "is_reversible": not rollout.irreversible,
        "is_overruled": rollout.is_overruled,
        "is_waived": rollout.is_waived,
        "patience_left_s": None if patience is None else round(patience.left_at(now), 1),
        "on_insufficient": rollout.settings.gates.on_insufficient.value,
        "gates": proofs.gates(rollout),
        "hooks": proofs.hooks(rollout, now),
        "smoke": proofs.smoke_test(state, rollout),
    }


def rollouts(state: EndpointState, now: float) -> list[Plain]:
    """Return the rollouts of an endpoint, oldest first, the one under way last."""
    under_way = state.rollout
    known = [*state.history]
    if under_way is not None and not under_way.is_over:
        known.append(under_way)
    return [_rollout(rollout, state.name, now) for rollout in known]


def _rollout(rollout: Rollout, name: str, now: float) -> Plain:
    ended_at = rollout.ended_at if rollout.ended_at is not None else now
    return {
        "id": rollout.id,
        "endpoint": name,
        "from": short(rollout.origin) or None,
        "to": short(rollout.revision),
        "outcome": rollout.phase.value,
        "is_over": rollout.is_over,
        "reason": rollout.reason,
        "question": rollout.question,
        "is_reversible": not rollout.irreversible,
        "is_overruled": rollout.is_overruled,
        "hooks": proofs.hooks(rollout, now),
        "started_s_ago": round(now - rollout.started_at, 3),
        "seconds": round(ended_at - rollout.started_at, 3),
        "marks": [
            {
                "after_s": round(mark.at - rollout.started_at, 3),
                "what": mark.what,
                "weight_pct": mark.weight_pct,
            }
            for mark in rollout.marks
        ],
    }
