"""How a history is told: events and commands in a line each, and what followed from them."""

from collections.abc import Iterator

from trafficmgr.core import events
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import Verdict
from trafficmgr.core.model import EndpointSettings, Rollout
from trafficmgr.core.routing import Table
from trafficmgr.core.schedule import WHOLE_PCT
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import Revision


def of_event(event: events.Event, now: float) -> str:
    """Return what was told, without what is empty or known."""
    told = {f: getattr(event, f) for f in event.__struct_fields__ if f != "at"}
    late = f" ({now - event.at:.2f}s late)" if now - event.at > 0.001 else ""
    words = " ".join(f"{key}={_brief(value)}" for key, value in told.items() if value)
    return f"<- {type(event).__name__} {words}{late}"


def of_table(table: Table) -> str:
    """Return what a table says."""
    shares = [
        f"{s.revision} {s.weight_pct}% [{' '.join(t.group for t in s.targets)}]"
        for s in table.shares
    ]
    said = ", ".join(shares) or "nothing"
    least_bad = " least bad" if table.is_least_bad else ""
    preview = "" if table.preview is None else f"; preview of {table.preview.revision}"
    head = f"table {table.generation} of {table.endpoint} ({table.publish}, {table.ttl_s}s)"
    return f"{head}: {said}{least_bad}{preview}"


def of_change(before: EndpointState | None, after: EndpointState) -> Iterator[str]:
    """Yield what changed in an endpoint."""
    roles = ("newest", "stable", "candidate", "previous", "ignored", "is_removed", "is_admitted")
    changed = [
        f"{role}={getattr(after, role)}"
        for role in roles
        if before is None or getattr(before, role) != getattr(after, role)
    ]
    if changed:
        yield f"{after.name}: {' '.join(changed)}"
    was = _rollout(before.rollout) if before is not None else ""
    if (now_on := _rollout(after.rollout)) != was:
        yield f"{after.name}: {now_on}"
    known = {g.id: g for g in before.groups} if before is not None else {}
    for group in after.groups:
        was_so = known.pop(group.id, None)
        if was_so is None or was_so != group:
            yield _group(group.id, was_so, group)
    yield from (f"{gone} is gone" for gone in known)


def _group(name: str, before: object, after: object) -> str:
    fields = after.__struct_fields__  # type: ignore[attr-defined]
    changed = [
        f"{f}={_brief(getattr(after, f))}"
        for f in fields
        if f != "id" and (getattr(before, f) != getattr(after, f) if before else f == "revision")
    ]
    return f"{name}: {' '.join(changed)}"


def _rollout(on: Rollout | None) -> str:
    if on is None:
        return ""
    hold = "-" if on.hold is None else f"{on.hold.left_s:.1f}s since {on.hold.since}"
    flags = " paused" * on.is_paused + " rollback" * on.is_rollback
    flags += " waived" * on.is_waived + " overruled" * on.is_overruled
    limit = f"{on.deadline.left_s:.1f}s since {on.deadline.since}"
    what = f"{on.id} to {on.revision} {on.phase} step {on.step}{flags}{_proofs(on)}"
    return f"{what} hold {hold} deadline {limit} {on.reason}{on.question}"


def _proofs(on: Rollout) -> str:
    """Return how far a rollout is with what it must prove."""
    verdicts = "".join(f" {v.gate}:{v.kind}" for v in on.verdicts)
    hooks = "".join(f" {run.name}:{run.phase}" for run in on.hooks)
    smoke = "" if on.smoke is None else f" smoke:{on.smoke.phase}{on.smoke.leg}"
    return verdicts + hooks + smoke


def _brief(value: object) -> str:
    match value:
        case Revision():
            told = value.id
        case EndpointSettings():
            told = value_settings(value)
        case Verdict():
            told = f"{value.gate}:{value.kind}"
        case Evidence():
            told = f"of {value.at:.2f}"
        case float():
            told = f"{value:.2f}"
        case dict():
            told = "{" + " ".join(f"{k}:{_brief(v)}" for k, v in value.items()) + "}"
        case _:
            told = str(value)
    return told


def value_settings(settings: EndpointSettings) -> str:
    """Return an endpoint's settings in short."""
    steps = [
        f"{s.weight_pct}/{s.hold_s:g}"
        + "p" * s.pause
        + (f"/{s.deadline_s:g}" if s.deadline_s else "")
        for s in settings.steps
    ]
    left_out = {"name", "hosts", "template", "port", "steps", "gates", "hooks", "smoke", "http"}
    rest = [
        f"{f.removesuffix('_s')}={getattr(settings, f)}"
        for f in settings.__struct_fields__
        if f not in left_out
    ]
    return f"[{' '.join(rest)} steps={','.join(steps)}{_demands(settings)}]"


def _demands(settings: EndpointSettings) -> str:
    gates = settings.gates
    hooks = [
        f"{hook.stage}:{hook.name}/{hook.timeout_s:g}" + "!" * (not hook.is_reversible)
        for hook in settings.hooks
    ]
    limits = f"/{gates.max_hold_s:g}/{gates.on_insufficient}"
    names = ",".join(gates.names(WHOLE_PCT))
    smoke = "" if settings.smoke is None else f" smoke={1 + 2 * settings.smoke.is_rehearsed}"
    told = f" gates={names}{limits}" if names else ""
    return told + (f" hooks={','.join(hooks)}" if hooks else "") + smoke
