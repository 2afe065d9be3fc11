"""`why`: what an endpoint waits for now, in sentences. Pure: a state in, sentences out.

Everything that anything waits for is in the state, because the core waits for nothing else. The
order is that of the questions which one asks at night: does anything decide at all, where is the
rollout, what has it still to prove (admin/unproven.py), which group is in its way, which worker,
what still has to drain, what comes next.
"""

from collections.abc import Iterator
from typing import Any

from trafficmgr.admin import unproven
from trafficmgr.admin.unproven import seconds
from trafficmgr.config.units import shown
from trafficmgr.core import clocks, moves, publishing, retirement
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, GroupPhase, Rollout, RolloutPhase
from trafficmgr.core.noun import Noun
from trafficmgr.core.schedule import WHOLE_PCT, groups_for, next_weight_pct, step_weight_pct
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import revision_id, short


class Sight(Noun):
    """What lies outside the endpoint's own state.

    `registry` is what is known of its images, as `status` shows it; `trouble` is why the journal
    can't be written.
    """

    fleet: Fleet
    registry: list[dict[str, Any]] = []
    trouble: str = ""


def reasons(state: EndpointState, sight: Sight, now: float) -> Iterator[str]:
    """Yield every reason, or one sentence that there is none."""
    found = [
        *_journal(sight),
        *_engine(state),
        *_requests_held(state),
        *_rollout(state, now),
        *_groups(state, now),
        *_workers(state, now),
        *_retiring(state, now),
        *_next(state, sight),
        *_registry(state, sight),
        *_warm(state, now),
    ]
    yield from found or [_nothing(state)]


def _nothing(state: EndpointState) -> str:
    if state.is_removed:
        return "It is removed; nothing of it runs, and it disappears when every worker knows."
    ready = len(state.ready(state.stable))
    count = f"{ready} of {state.replicas} groups ready"
    return f"It waits for nothing: revision {short(state.stable)} serves with {count}."


def _journal(sight: Sight) -> Iterator[str]:
    if sight.trouble:
        yield f"Nothing is decided until the journal can be written again: {sight.trouble}"


def _requests_held(state: EndpointState) -> Iterator[str]:
    if state.is_held:
        yield (
            f"An operator holds its requests: each waits in the proxy for up to"
            f" {shown(state.settings.http.hold_s)}; `trafficmgr release {state.name}` lets them be"
            f" served."
        )


def _engine(state: EndpointState) -> Iterator[str]:
    if state.is_engine_away:
        yield (
            "The engine that runs the groups can't be asked: until it answers, none is started,"
            " stopped or given up. What runs goes on, as far as probes can tell."
        )


# -- the rollout ----------------------------------------------------------------------------------


def _rollout(state: EndpointState, now: float) -> Iterator[str]:
    rollout = state.rollout
    if rollout is None or rollout.is_over:
        return
    match rollout.phase:
        case RolloutPhase.progressing:
            yield from _progressing(state, rollout, now)
        case RolloutPhase.promoting:
            yield from _watched(state, rollout, now)
        case _:
            left = sum(group.revision == rollout.revision for group in state.groups)
            yield (
                f"{short(rollout.revision)} is being aborted ({rollout.reason}); {left} of its"
                f" groups still have to stop."
            )


def _progressing(state: EndpointState, rollout: Rollout, now: float) -> Iterator[str]:
    is_halted = rollout.is_paused or rollout.is_held
    if is_halted:
        yield _halted(state, rollout)
    yield from unproven.going_on(state, rollout, now)
    yield from unproven.overruled(rollout)
    if not is_halted:
        hold = rollout.hold
        if hold is not None and hold.left_at(now) > 0:
            yield _held(state, rollout, hold.left_at(now), is_running=hold.since is not None)
        elif not rollout.is_hooked and not clocks.can_go_on(state, rollout, now):
            yield from _not_ready_for_more(state, rollout, now)
        yield from unproven.gates(rollout, now)
        yield from _deadline(state, rollout, now)
    yield from unproven.irreversible(state, rollout)


def _halted(state: EndpointState, rollout: Rollout) -> str:
    """Return who or what has stopped the rollout, and what lets it go on."""
    name = short(rollout.revision)
    if rollout.question:
        return unproven.asked(state, rollout, where=_where(rollout))
    if rollout.is_paused:
        return (
            f"The rollout of {name} was paused by an operator {_where(rollout)};"
            f" `trafficmgr resume {state.name}` lets it go on."
        )
    return (
        f"The rollout of {name} waits {_where(rollout)}, because its config says so;"
        f" `trafficmgr promote {state.name}` lets it go on."
    )


def _where(rollout: Rollout) -> str:
    if rollout.step < 0:
        return "before its first step"
    weight_pct = step_weight_pct(rollout)
    share = f"with {weight_pct} % of traffic" if weight_pct else "as a preview"
    return f"at step {rollout.step + 1} of {len(rollout.settings.steps)} {share}"


def _held(state: EndpointState, rollout: Rollout, left_s: float, *, is_running: bool) -> str:
    name, left = short(rollout.revision), seconds(left_s)
    if is_running:
        proviso = ", if its gates have passed" if rollout.open_gates else ""
        then = f"then it gets {next_weight_pct(rollout)} %{proviso}"
        return f"{name} is held {_where(rollout)} for another {left}; {then}."
    pct = publishing.candidate_weight_pct(state)
    return (
        f"The hold of {name} stands still at {left} left: it should have"
        f" {step_weight_pct(rollout)} % and can carry {pct} %."
    )


def _not_ready_for_more(state: EndpointState, rollout: Rollout, now: float) -> Iterator[str]:
    """Yield what the next step lacks: ready groups, or `min_ready` of those that are."""
    name, ready = short(rollout.revision), state.ready(rollout.revision)
    wanted, what = clocks.candidate_groups(state, now), ""
    if rollout.step >= 0:
        wanted = groups_for(next_weight_pct(rollout), state.replicas)
        what = f" with {next_weight_pct(rollout)} % of traffic"
    if len(ready) < wanted:
        yield f"{name} has {len(ready)} of the {wanted} groups ready that it needs to go on{what}."
        return
    min_ready_s = rollout.settings.min_ready_s
    young = [g.ready_since + min_ready_s - now for g in ready if g.ready_since is not None]
    yield (
        f"The groups of {name} are ready; they must stay so for another"
        f" {seconds(max(young, default=0.0))} (min_ready)."
    )


def _deadline(state: EndpointState, rollout: Rollout, now: float) -> Iterator[str]:
    if rollout.deadline.since is not None:
        left = seconds(rollout.deadline.left_at(now))
        yield f"Without progress {short(rollout.revision)} is given up in {left}."
    elif state.is_engine_away:
        yield "The deadline stands still until the engine answers."
    elif any(group.is_unknown for group in state.live(rollout.revision)):
        yield "The deadline stands still, because it can't be known whether a group can start."


def _watched(state: EndpointState, rollout: Rollout, now: float) -> Iterator[str]:
    """Yield what the watch waits for: an answer, its end, or what is done after it."""
    if rollout.question:
        yield unproven.asked(state, rollout, where="while it was watched")
    yield from unproven.going_on(state, rollout, now)
    yield from unproven.overruled(rollout)
    if not rollout.is_paused and not rollout.is_hooked:
        yield _watch(state, rollout, now)
    yield from unproven.irreversible(state, rollout)


def _watch(state: EndpointState, rollout: Rollout, now: float) -> str:
    left = seconds(rollout.hold.left_at(now) if rollout.hold else 0.0)
    name = short(rollout.revision)
    if rollout.hold is not None and rollout.hold.since is None:
        return f"The watch over {name} stands still at {left} left: not all its groups are ready."
    has_gates = not rollout.is_overruled and bool(rollout.settings.gates.names(WHOLE_PCT))
    what = "it or one of its gates fails" if has_gates else "it fails"
    has_way_back = bool(state.previous) and not rollout.irreversible
    back = f"; if {what}, {short(state.previous)} comes back" if has_way_back else ""
    return f"{name} is stable and watched for another {left}{back}."


# -- groups and workers ---------------------------------------------------------------------------


def _groups(state: EndpointState, now: float) -> Iterator[str]:
    """Yield what each group that should serve still lacks; a hook speaks for its own."""
    for group in state.groups:
        if not group.is_retiring and not group.is_ready and not group.hook:
            yield f"Group {group.id} of {short(group.revision)} {_lacks(group, state, now)}."


def _lacks(group: Group, state: EndpointState, now: float) -> str:
    why = f": {group.note}" if group.note else ""
    match group.phase:
        case GroupPhase.waiting:
            backoff = state.backoff.get(group.revision)
            times = f" after {backoff.failures} failures" if backoff and backoff.failures else ""
            return f"is started in {seconds(group.start_at - now)}{times}"
        case GroupPhase.wanted if not group.address:
            return "waits for a free address; give a larger address_pool"
        case GroupPhase.wanted:
            how = (
                "can't be started now, and is tried again"
                if group.is_unknown
                else "is being started"
            )
            return f"{how}{why}"
        case GroupPhase.completed:
            return f"has ended without success, and its restart policy wants no other{why}"
        case _:
            return f"runs and is not ready{why}"


def _workers(state: EndpointState, now: float) -> Iterator[str]:
    """Yield which slots nobody has heard of, and which have not taken over the newest table."""
    generation = state.table.generation
    for slot in state.slots:
        if not slot.is_present:
            at = publishing.overdue_at(slot, state)
            when = "" if at is None else f", and is given {seconds(at - now)} more"
            what = f"has no worker that said hello to this controller{when}; no group stops before"
        elif slot.applied < generation and slot.lagging_since is not None:
            left = seconds(slot.lagging_since + state.settings.fence_s - now)
            when = "now" if slot.is_overdue else f"in {left} unless it does"
            what = f"has not acknowledged table {generation}; its worker is replaced {when}"
        else:
            continue
        yield f"Slot {slot.number} {what}."


def _retiring(state: EndpointState, now: float) -> Iterator[str]:
    for group in state.groups:
        if not group.is_retiring:
            continue
        name = f"Group {group.id} of {short(group.revision)}"
        if group.phase is GroupPhase.stopping:
            yield f"{name} is being stopped."
            continue
        unmet = [c for c in retirement.conditions(group, state, now) if not c.is_met]
        if unmet:
            yield f"{name} retires and waits for {', and for '.join(_wait(c, now) for c in unmet)}."


def _wait(condition: retirement.Condition, now: float) -> str:
    if condition.ends_at is None:
        return condition.says
    return f"{condition.says} ({seconds(condition.ends_at - now)} left)"


# -- what comes next ------------------------------------------------------------------------------


def _next(state: EndpointState, sight: Sight) -> Iterator[str]:
    """Yield why the newest revision is not under way."""
    newest, retry = state.newest, f"`trafficmgr retry {state.name}`"
    if state.is_removed:
        return
    if state.ignored:
        yield (
            f"Revision {short(state.ignored)} came during a rollout and is ignored"
            f" (on_newer: ignore); {retry} takes it up."
        )
    if not newest:
        yield "No revision is known yet: the registry has to show its image for the first time."
    elif newest in state.quarantined:
        yield (
            f"Revision {short(newest)} is in quarantine: {state.quarantined[newest]}. A newer"
            f" image takes its place; {retry} tries it again."
        )
    elif newest not in {state.stable, state.candidate}:
        yield _waits_its_turn(state, sight)
    yield from _other_group(state)


def _waits_its_turn(state: EndpointState, sight: Sight) -> str:
    name = short(state.newest)
    if not moves.wants_rollout(state):
        return f"Revision {name} waits until the rollout under way is over."
    if state.stable and not state.is_admitted:
        most = sight.fleet.max_concurrent
        busy = " and ".join(
            other
            for other, one in sight.fleet.endpoints.items()
            if other != state.name and one.stable and _is_progressing(one)
        )
        return f"Revision {name} waits for its turn: {busy} is rolled out (max_concurrent: {most})."
    running = sorted({group.revision for group in state.groups})
    most = state.settings.max_revisions
    return (
        f"Revision {name} waits until one of {', '.join(map(short, running))} has drained"
        f" (max_revisions: {most})."
    )


def _is_progressing(state: EndpointState) -> bool:
    return state.rollout is not None and state.rollout.phase is RolloutPhase.progressing


def _other_group(state: EndpointState) -> Iterator[str]:
    """Yield that the config asks for another group than the newest revision has."""
    newest = state.revisions.get(state.newest)
    if newest is None:
        return
    wanted = revision_id(state.settings.template, newest.images)
    had = revision_id(newest.template, newest.images)
    if wanted != had:
        yield (
            "The config asks for another group than the newest revision has; the registry has to"
            " show its image."
        )


def _registry(state: EndpointState, sight: Sight) -> Iterator[str]:
    if state.is_removed:
        return
    for image in sight.registry:
        if image.get("trouble"):
            since = image.get("trouble_for_s")
            for_long = "" if since is None else f" since {seconds(since)}"
            yield (
                f"Whether {image['image']} is new can't be known{for_long}: {image['trouble']}"
                f" What runs goes on."
            )


def _warm(state: EndpointState, now: float) -> Iterator[str]:
    is_watched = state.rollout is not None and state.rollout.phase is RolloutPhase.promoting
    if state.previous and not is_watched:
        left = seconds(state.previous_until - now)
        yield f"Revision {short(state.previous)} is kept warm for another {left}, to go back to."
