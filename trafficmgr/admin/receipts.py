"""A receipt as plain data, for the API: what `trafficmgr rollouts show` is made of.

A pure function of the receipt. Moments are told twice, as seconds after the beginning and as wall
time; the first are exact, the second are for display. A `from` of null is a first deployment.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from trafficmgr.controller.counts import NOTHING, ByRevision, failed
from trafficmgr.controller.receipt import GroupFacts, HookFacts, Judged, Receipt, Window, iso
from trafficmgr.core.gating import HookPhase
from trafficmgr.core.template import short
from trafficmgr.wire.frames import ShareCounts

Plain = dict[str, Any]


def plain(receipt: Receipt) -> Plain:
    """Return a receipt, final or not, ready for JSON."""
    counted = receipt.counted()
    return {
        "id": receipt.id,
        "endpoint": receipt.endpoint,
        "from": short(receipt.origin) or None,
        "to": short(receipt.revision),
        "outcome": receipt.phase.value,
        "is_over": receipt.ended_at is not None,
        "is_final": receipt.is_final,
        "is_rollback": receipt.is_rollback,
        "reason": receipt.reason,
        "started": iso(receipt.started_at),
        "seconds": _after(receipt, receipt.ended_at),
        "failed": sum(failed(share) for share in counted.values()),
        "seen": _seen(receipt, counted),
        "failures": list(_failures(receipt, counted)),
        "revisions": list(_revisions(receipt, counted)),
        "phases": list(_phases(receipt)),
        "shares": list(_shares(receipt)),
        "smoke": _smoke(receipt),
        "verdicts": [_verdict(receipt, judged) for judged in receipt.verdicts],
        "is_overruled": receipt.is_overruled,
        "hooks": [_hook(receipt, facts) for facts in receipt.hooks],
        "groups": [_group(receipt, facts) for facts in _groups(receipt)],
        "gaps": list(receipt.gaps),
        "waits": list(_waits(receipt)),
    }


def role(receipt: Receipt, revision: str) -> str:
    """Return what a revision is to a rollout, in a word: "from", "to", "none" or "other"."""
    roles = {receipt.revision: "to", receipt.origin: "from", "": "none"}
    return roles.get(revision, "other")


def _after(receipt: Receipt, at: float | None) -> float | None:
    return None if at is None else round(at - receipt.started_at, 3)


def _moment(receipt: Receipt, at: float | None) -> Plain | None:
    if at is None:
        return None
    return {"after_s": _after(receipt, at), "at": iso(at)}


def _seen(receipt: Receipt, counted: ByRevision) -> Plain:
    """Return what users met of the new revision while it had weight, and the sentence on it."""
    share, name = counted.get(receipt.revision, NOTHING), short(receipt.revision)
    requests, bad = share.requests, failed(share)
    if requests:
        noun = "request was" if requests == 1 else "requests were"
        says = f"{requests} {noun} answered by revision {name}: {bad or 'none'} failed."
    elif share.dns:
        noun = "answer" if share.dns == 1 else "answers"
        says = f"{share.dns} DNS {noun} led to revision {name}; what came of it was not seen."
    else:
        says = f"No request was answered by revision {name}."
    return {"requests": requests, "failed": bad, "dns_answers": share.dns, "says": says}


def _failures(receipt: Receipt, counted: ByRevision) -> Iterator[Plain]:
    """Yield each cause with its count; whose doing it was is the first thing one asks."""
    for revision, share in counted.items():
        which = {"revision": short(revision) or None, "role": role(receipt, revision)}
        for cause, count in share.failures.items():
            yield {**which, "by": "proxy", "cause": cause, "count": count}
        if share.errors_5xx:
            yield {**which, "by": "application", "cause": "5xx", "count": share.errors_5xx}


def _revisions(receipt: Receipt, counted: ByRevision) -> Iterator[Plain]:
    """Yield old and new first, then whatever else was served or found no target."""
    order = dict.fromkeys(filter(None, (receipt.origin, receipt.revision)))
    for revision in (*order, *(other for other in counted if other not in order)):
        share = counted.get(revision, NOTHING)
        yield {
            "revision": short(revision) or None,
            "role": role(receipt, revision),
            "requests": share.requests,
            "dns_answers": share.dns,
            "errors_5xx": share.errors_5xx,
            "failures": share.failures,
            "spilled": share.spilled,
            "preview": share.preview,
        }


def _phases(receipt: Receipt) -> Iterator[Plain]:
    """Yield what the rollout did, each with how long it lasted: until the next, or until now."""
    ends = [*(mark.at for mark in receipt.marks[1:]), receipt.ended_at]
    for mark, end in zip(receipt.marks, ends, strict=True):
        yield {
            "what": mark.what,
            "weight_pct": mark.weight_pct,
            "after_s": _after(receipt, mark.at),
            "seconds": None if end is None else round(end - mark.at, 3),
        }


def _shares(receipt: Receipt) -> Iterator[Plain]:
    """Yield the new revision's share, configured and observed, for each time of equal weights."""
    ends = [*(after.at for _, after in pairwise(receipt.windows)), receipt.ended_at]
    for window, end in zip(receipt.windows, ends, strict=True):
        clients = {name: _clients(share) for name, share in window.counted.items() if name}
        everybody = sum(clients.values())
        observed = clients.get(receipt.revision, 0)
        yield {
            "after_s": _after(receipt, window.at),
            "seconds": None if end is None else round(end - window.at, 3),
            "weight_pct": window.weights.get(receipt.revision, 0),
            "observed_pct": round(100 * observed / everybody, 2) if everybody else None,
            "clients": everybody,
            "spilled": _spilled(window),
        }


def _clients(share: ShareCounts) -> int:
    return share.requests + share.dns


def _spilled(window: Window) -> int:
    return sum(share.spilled for share in window.counted.values())


# -- what it had to prove -------------------------------------------------------------------------


def _smoke(receipt: Receipt) -> Plain | None:
    facts = receipt.smoke
    if facts is None:
        return None
    return {
        "phase": facts.phase.value,
        "leg": facts.asked,
        "legs": facts.legs,
        "note": facts.note,
    }


def _verdict(receipt: Receipt, judged: Judged) -> Plain:
    is_watch = judged.stage >= len(receipt.steps)
    return {
        **(_moment(receipt, judged.verdict.at) or {}),
        "stage": "watch" if is_watch else f"step {judged.stage + 1}",
        "weight_pct": judged.weight_pct,
        "gate": judged.verdict.gate,
        "kind": judged.verdict.kind.value,
        "why": judged.verdict.why,
        "numbers": judged.verdict.numbers,
    }


def _hook(receipt: Receipt, facts: HookFacts) -> Plain:
    """Return how a hook went; one that an abort broke off is "cut off"."""
    is_cut = receipt.ended_at is not None and facts.phase in {HookPhase.wanted, HookPhase.running}
    is_timed = facts.began_at is not None and facts.ended_at is not None
    return {
        "name": facts.name,
        "stage": facts.stage.value,
        "phase": "cut off" if is_cut else facts.phase.value,
        "group": facts.group or None,
        "began": _moment(receipt, facts.began_at),
        "seconds": round((facts.ended_at or 0) - (facts.began_at or 0), 3) if is_timed else None,
        "note": facts.note,
        "output": facts.output,
    }


# -- groups ---------------------------------------------------------------------------------------


def _groups(receipt: Receipt) -> Iterator[GroupFacts]:
    yield from receipt.groups
    yield from receipt.present.values()


def _group(receipt: Receipt, facts: GroupFacts) -> Plain:
    return {
        "id": facts.id,
        "revision": short(facts.revision),
        "role": role(receipt, facts.revision),
        "hook": facts.hook or None,
        "address": facts.address,
        "withdrawn": _moment(receipt, facts.withdrawn_at),
        "last_answered": _moment(receipt, facts.answered_at),
        "stopped": _moment(receipt, facts.stopped_at),
        "says": _says(facts),
    }


def _says(facts: GroupFacts) -> str:
    """Return what else there is to say of a group."""
    sentences = []
    if facts.is_missed:
        sentences.append("It stopped while no controller was there to see when.")
    if facts.has_clients:
        sentences.append("It stopped with clients connected; how many is not known.")
    if facts.hook:
        sentences.append(f"It ran the task of hook {facts.hook}.")
    elif facts.note:
        sentences.append(f"Its last trouble: {facts.note}")
    return " ".join(sentences)


def _waits(receipt: Receipt) -> Iterator[str]:
    """Yield what a draft waits for until it is final."""
    if receipt.is_final:
        return
    if receipt.ended_at is None:
        yield "the end of the rollout"
    elif receipt.settled_at is None:
        left = sum(facts.revision in receipt.losing for facts in receipt.present.values())
        names = ", ".join(map(short, receipt.losing))
        yield f"{left} {'group' if left == 1 else 'groups'} of {names} to stop"
    else:
        yield "the workers' last reports"
