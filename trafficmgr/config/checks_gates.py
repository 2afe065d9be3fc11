"""What must hold between gates, hooks and smoke and the rest of their endpoint.

Gates can only judge what is seen, hooks only run where there is a container, and a step must be
given the time for its verdicts. Names are what a verdict or a hook is known by, so they are unique.
"""

import difflib
from collections.abc import Iterable, Iterator

from trafficmgr.config.document import Loc
from trafficmgr.config.shape import EndpointShape
from trafficmgr.config.shape_gates import TRAFFIC_GATES, GatesShape
from trafficmgr.config.shape_group import GroupShape
from trafficmgr.config.shape_hooks import AfterHookShape, HooksShape
from trafficmgr.config.shape_rollout import RolloutShape
from trafficmgr.config.units import shown
from trafficmgr.config.wording import Fault
from trafficmgr.core.gating import HookStage
from trafficmgr.core.model import Affinity

Placed = tuple[Loc, AfterHookShape]
"""Where a hook stands, and the hook."""


def faults_of(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    """Yield what does not fit together in an endpoint's rollout."""
    loc: Loc = ("endpoints", name, "rollout")
    gates = endpoint.rollout.gates
    yield from _affinity(name, endpoint)
    yield from _unseen(name, endpoint)
    yield from _waits(name, endpoint.rollout)
    names = [(("gates", "checks", i), check.name) for i, check in enumerate(gates.checks)]
    yield from _names(loc, "check", names, TRAFFIC_GATES)
    yield from _probes((*loc, "gates", "checks"), gates, endpoint.group)
    yield from _hooks(loc, endpoint)


# -- what can be seen -----------------------------------------------------------------------------


def _affinity(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    """Yield an affinity that nothing could keep, and a comparison that it rules out."""
    if endpoint.affinity.kind is Affinity.none:
        return
    loc: Loc = ("endpoints", name, "affinity")
    if endpoint.publish == "groups":
        text = (
            f'"affinity" of endpoint "{name}" needs the proxy: answers of DNS are not bound to'
            " a client in this version"
        )
        yield Fault(loc, text, "write publish: proxy, or remove it")
    compare = endpoint.rollout.gates.compare
    if compare is not None and compare.latency:
        text = f'"latency" of "compare" of endpoint "{name}" is not compared with an affinity'
        hint = "remove it; max_p95: 400ms is a limit that works with one"
        yield Fault(("endpoints", name, "rollout", "gates", "compare", "latency"), text, hint)


def _unseen(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    """Yield gates on traffic that goes past us."""
    if endpoint.publish == "proxy":
        return
    for key in TRAFFIC_GATES:
        if getattr(endpoint.rollout.gates, key) is not None:
            text = (
                f'"{key}" of "gates" of endpoint "{name}" would see no traffic: with'
                " publish: groups clients connect to the groups, and nothing of it is counted here"
            )
            hint = "write checks: with a probe, http or command in its place"
            yield Fault(("endpoints", name, "rollout", "gates", key), text, hint, on_key=True)


# -- how long gates are waited for ----------------------------------------------------------------


def _waits(name: str, rollout: RolloutShape) -> Iterator[Fault]:
    gates = rollout.gates
    loc: Loc = ("endpoints", name, "rollout", "gates")
    if gates.is_off():
        for key in ("max_hold", "on_insufficient"):
            if key in gates.model_fields_set:
                text = f'"{key}" of endpoint "{name}" has no gate to wait for'
                hint = "add one, such as compare: true, or remove it"
                yield Fault((*loc, key), text, hint, on_key=True)
        return
    longest_s, called = max(_holds(rollout), default=(0.0, ""), key=lambda hold: hold[0])
    if longest_s <= gates.max_hold:
        return
    most, longest = shown(gates.max_hold), shown(longest_s)
    if "max_hold" in gates.model_fields_set:
        text = f'"max_hold" of endpoint "{name}" is less than {called} is held for: {longest}'
        yield Fault((*loc, "max_hold"), text, f"write {longest} or more")
    else:
        text = f'"gates" of endpoint "{name}" end a step after {most}, but {called} is held for'
        yield Fault(loc, f"{text} {longest}", f"add max_hold: {longest} or more", on_key=True)


def _holds(rollout: RolloutShape) -> Iterator[tuple[float, str]]:
    """Yield how long each stage that has gates is held, and what it is called.

    One that waits for `promote` has no hold; one without weight has no traffic to judge.
    """
    preview = rollout.preview
    if preview is not None and not preview.pause and rollout.gates.checks:
        yield preview.hold or 0.0, "the preview"
    if rollout.strategy == "canary":
        for number, step in enumerate(rollout.steps, 1):
            if not step.pause and (step.weight or rollout.gates.checks):
                yield step.hold or 0.0, f"step {number}"


# -- names and containers -------------------------------------------------------------------------


def _names(
    loc: Loc, noun: str, named: Iterable[tuple[Loc, str]], taken: Iterable[str]
) -> Iterator[Fault]:
    """Yield names that are there twice, or that something of ours has."""
    ours, seen = frozenset(taken), set[str]()
    for place, name in named:
        if name in ours:
            text = f'{noun} "{name}" has the name of a gate of ours'
            yield Fault((*loc, *place, "name"), text, "give it another name")
        elif name in seen:
            text = f'{noun} "{name}" has the name of another {noun} of its endpoint'
            yield Fault((*loc, *place, "name"), text, "give it one of its own")
        seen.add(name)


def _probes(loc: Loc, gates: GatesShape, group: GroupShape) -> Iterator[Fault]:
    for index, check in enumerate(gates.checks):
        if check.probe is not None and check.probe.exec is not None:
            where: Loc = (*loc, index, "probe")
            yield from _container(where, f'check "{check.name}"', check.probe.container, group)


def _hooks(loc: Loc, endpoint: EndpointShape) -> Iterator[Fault]:
    placed = list(_placed(endpoint.rollout.hooks))
    yield from _names(loc, "hook", ((place, hook.name) for place, hook in placed), ())
    for place, hook in placed:
        if hook.command is not None:
            called = f'hook "{hook.name}"'
            yield from _container((*loc, *place), called, hook.container, endpoint.group)


def _placed(hooks: HooksShape) -> Iterator[Placed]:
    """Yield every hook, in the order in which they are done."""
    for stage in HookStage:
        for index, hook in enumerate(getattr(hooks, stage.value)):
            yield ("hooks", stage.value, index), hook


def _container(loc: Loc, called: str, wanted: str | None, group: GroupShape) -> Iterator[Fault]:
    """Yield a fault unless it is said, or plain, in which container a command runs."""
    known = [container.name for container in group.containers]
    if wanted is None and len(known) > 1:
        text = f"{called} does not say in which container its command runs"
        yield Fault(loc, text, f"add container: {known[0]}", on_key=True)
    elif wanted is not None and known and wanted not in known:
        text = f'{called} runs in a container "{wanted}", which its group does not have'
        near = difflib.get_close_matches(wanted, known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"write {' or '.join(known)}"
        yield Fault((*loc, "container"), text, hint)
