"""The lines of a transcript: what changed in the state, in the order in which people tell it."""

from collections.abc import Iterator

from support.story_words import NAME
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState


def told(now: float, before: Fleet, after: Fleet) -> Iterator[str]:
    """Yield one line for each thing that changed, in the order in which people would tell it."""
    if NAME not in after.endpoints:
        if NAME in before.endpoints:
            yield f"{now:7.1f}  the endpoint is gone"
        return
    new = after.endpoints[NAME]
    old = before.endpoints.get(NAME)
    said = (*_proofs(old, new), *_rollout(old, new), *_groups(old, new))
    yield from (f"{now:7.1f}  {line}" for line in said)
    if new.table.generation != (old.table.generation if old else 0):
        yield f"{now:7.1f}  table {new.table.generation}: {_table(new.table)}"


def _rollout(old: EndpointState | None, new: EndpointState) -> Iterator[str]:
    marks = {(r.id, m) for s in [old] if s for r in (*s.history, s.rollout) if r for m in r.marks}
    seen = set()
    for rollout in (*new.history, new.rollout):
        if rollout is None or rollout.id in seen:
            continue
        seen.add(rollout.id)
        for mark in rollout.marks:
            if (rollout.id, mark) not in marks:
                weight = f" {mark.weight_pct}%" if mark.weight_pct else ""
                ends = mark.what in {"aborted", "superseded"}
                why = f": {rollout.reason}" if ends and rollout.reason else ""
                yield f"rollout of {rollout.revision}: {mark.what}{weight}{why}"


def _proofs(old: EndpointState | None, new: EndpointState) -> Iterator[str]:
    """Yield what gates, hooks and smoke have come to."""
    was, now = None if old is None else old.rollout, new.rollout
    if now is None:
        return
    is_same = was is not None and was.id == now.id
    known_hooks = {run.name: run.phase for run in was.hooks} if was and is_same else {}
    for run in now.hooks:
        if run.phase != known_hooks.get(run.name, "waiting"):
            yield f"hook {run.name}: {run.phase}" + (f" ({run.note})" if run.note else "")
    known_verdicts = {v.gate: v.kind for v in was.verdicts} if was and is_same else {}
    for verdict in now.verdicts:
        if verdict.kind != known_verdicts.get(verdict.gate):
            yield f"gate {verdict.gate}: {verdict.kind}"
    if now.smoke is not None and (not was or not is_same or was.smoke != now.smoke):
        note = f" ({now.smoke.note})" if now.smoke.note else ""
        yield f"smoke: {now.smoke.phase} leg {now.smoke.leg}{note}"
    if now.question and (not was or was.question != now.question):
        yield f"question: {now.question}"


def _groups(old: EndpointState | None, new: EndpointState) -> Iterator[str]:
    known = {g.id: g for g in old.groups} if old else {}
    for group in new.groups:
        was = known.pop(group.id, None)
        if was is None:
            task = f" runs hook {group.hook}" if group.hook else ""
            yield f"{group.id} of {group.revision} at {group.address}: {group.phase}{task}"
            continue
        if was.phase != group.phase:
            yield f"{group.id}: {group.phase}" + (f" ({group.note})" if group.note else "")
        if was.is_ready != group.is_ready and group.phase == "started":
            yield f"{group.id}: {'ready' if group.is_ready else 'unready'}"
        if group.is_retiring and not was.is_retiring and group.phase != "ended":
            yield f"{group.id}: retiring"
    yield from (f"{gone}: gone" for gone in known)


def _table(table: Table) -> str:
    shares = [
        f"{s.revision} {s.weight_pct}% [{' '.join(t.group for t in s.targets)}]"
        for s in table.shares
    ]
    said = ", ".join(shares) or "nothing"
    if table.is_least_bad:
        said += " least bad"
    if table.preview is not None:
        said += f"; preview [{' '.join(t.group for t in table.preview.targets)}]"
    return said
