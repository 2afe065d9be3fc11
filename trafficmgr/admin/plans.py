"""A plan in words, and as data; `apply` says what it has done in the same shape.

    {"says": "a sentence a line", "is_possible": true,
     "restart":   [{"key": "workers", "old": "2", "new": "4"}],
     "service":   [{"key": "max_concurrent", "old": "2", "new": "1"}],
     "endpoints": [{"name": "shop", "fate": "changed", "changed": [{"key", "old", "new"}],
                    "rolls_out": "yes", "groups": 2}],
     "moved":     [{"host": "shop.apps.test", "old": "shop", "new": "store"}]}

`rolls_out` is "yes", "no" or "perhaps": another tag may name the same image.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from trafficmgr.controller.plan import Changed, EndpointPlan, Fate, Moved, Plan

Plain = dict[str, Any]


def plain(plan: Plan) -> Plain:
    """Return a plan as data."""
    return {
        "says": "\n".join(sentences(plan)),
        "is_possible": not plan.restart,
        "restart": [_pair(one) for one in plan.restart],
        "service": [_pair(one) for one in plan.service],
        "endpoints": [_endpoint(one) for one in plan.endpoints],
        "moved": [msgspec.to_builtins(one) for one in plan.moved],
    }


def _pair(one: Changed) -> Plain:
    return {"key": one.key, "old": one.old, "new": one.new}


def _endpoint(plan: EndpointPlan) -> Plain:
    return {
        "name": plan.name,
        "fate": plan.fate.value,
        "changed": [_pair(one) for one in plan.changed],
        "rolls_out": _rolls_out(plan),
        "groups": plan.groups,
    }


def _rolls_out(plan: EndpointPlan) -> str:
    if plan.fate is Fate.new or plan.has_new_group:
        return "yes"
    return "perhaps" if plan.has_new_tag else "no"


def sentences(plan: Plan) -> Iterator[str]:
    """Yield what would happen, what is unchanged last and in one line."""
    if plan.changes_nothing:
        yield "Nothing changes."
        return
    for one in plan.restart:
        yield f"{one.key}: {_change(one)}; that needs a restart, so `apply` refuses all of it."
    for one in plan.service:
        yield f"{one.key}: {_change(one)}."
    for endpoint in plan.endpoints:
        yield from _of_endpoint(endpoint)
    for moved in plan.moved:
        yield _of_moved(moved)
    same = [one.name for one in plan.endpoints if one.fate is Fate.unchanged]
    if same:
        yield f"Unchanged: {', '.join(same)}."


def _of_endpoint(plan: EndpointPlan) -> Iterator[str]:
    match plan.fate:
        case Fate.new:
            yield f"{plan.name}: new; it starts when the registry has shown its image."
        case Fate.removed:
            yield f"{plan.name}: removed; {_count(plan.groups)}."
        case Fate.changed:
            for one in plan.changed:
                yield f"{plan.name}: {one.key}: {_change(one)}."
            yield from _follows(plan)
        case Fate.unchanged:
            return


def _count(groups: int) -> str:
    if not groups:
        return "it has no groups"
    return "its 1 group drains first" if groups == 1 else f"its {groups} groups drain first"


def _follows(plan: EndpointPlan) -> Iterator[str]:
    """Yield what a change leads to beyond itself."""
    keys = [one.key for one in plan.changed]
    if plan.has_new_group:
        yield f"{plan.name}: its group changes, so a new revision is rolled out."
    elif plan.has_new_tag:
        yield f"{plan.name}: a new revision is rolled out if the tag names another image."
    elif any(key.endswith(".readiness") for key in keys):
        yield f"{plan.name}: readiness counts from the next revision on."
    if plan.is_under_way and any(key.startswith("rollout.") for key in keys):
        kept = "the steps, gates and hooks that it began with"
        yield f"{plan.name}: the rollout under way goes on with {kept}."


def _of_moved(moved: Moved) -> str:
    return (
        f"{moved.host} moves from {moved.old} to {moved.new}, which has to start first: until"
        f" then it is answered with 503."
    )


def _change(one: Changed) -> str:
    return f"{one.old or 'nothing'} -> {one.new or 'nothing'}"
